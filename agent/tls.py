"""What a TLS connection to a broker is made with: files that may be replaced while the agent runs."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]
"""Path, inode, size and time of change (ns) of each file that is there."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM files. `ca` checks the broker (None: the system's store); `cert` with `key` are for brokers that check us.

    Every method reads files, so none is for the event loop.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def context(self) -> ssl.SSLContext:
        """A context for TLS 1.2 or later that verifies the broker and its name. Raises OSError, ssl.SSLError."""
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            # Without a password of its own OpenSSL would ask the terminal for one, and wait.
            context.load_cert_chain(self.cert, self.key, password=lambda: b"")
        return context

    def stamp(self) -> Stamp:
        """Changes with the files."""
        found = []
        for path in (self.ca, self.cert, self.key):
            if path is not None:
                try:
                    now = path.stat()
                except OSError:
                    continue
                found.append((str(path), now.st_ino, now.st_size, now.st_mtime_ns))
        return tuple(found)
