"""The directories of what is trusted. They are read again whenever something in them changed: nothing is restarted.

    trusted/   servers that are trusted, and certification authorities (CA) whose servers all are
    issuers/   CAs that only complete a chain: nothing is trusted because of them
    crl/       certificate revocation lists
    rejected/  servers that were refused, to be moved to trusted/ by who knows them (`headrace trust`)

Files are DER or PEM; their names do not matter.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from cryptography import x509

from agent import durable
from agent.pki import certificate as certificates

log = logging.getLogger("headrace.pki")

MOST_FILES = 1000
"""In one directory."""
MOST_CRL_BYTES = 16 * 1024 * 1024
MOST_REJECTED = 50
"""Of more, the oldest go."""
Stamp: TypeAlias = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class Trust:
    """What the directories held at one moment."""

    trusted: list[x509.Certificate] = field(default_factory=list)
    issuers: list[x509.Certificate] = field(default_factory=list)
    crls: list[x509.CertificateRevocationList] = field(default_factory=list)

    def has(self, certificate: x509.Certificate) -> bool:
        """Whether this very certificate is in trusted/."""
        return certificate in self.trusted


class Store:
    """The directories below one place. All calls block."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._known: tuple[Stamp, Trust] | None = None
        self._told: set[tuple[str, int, int]] = set()

    def stamp(self) -> Stamp:
        """Differs after a change of any file."""
        return tuple(each for name in ("trusted", "issuers", "crl") for _, each in self._files(name))

    def load(self) -> Trust:
        """What is there now. A file that can't be read is said, and left out: what it holds is not trusted."""
        stamp = self.stamp()
        if self._known is None or self._known[0] != stamp:
            self._known = stamp, Trust(self._certificates("trusted"), self._certificates("issuers"), self._crls())
        return self._known[1]

    def trust(self, certificate: x509.Certificate) -> Path:
        """Puts a certificate into trusted/, and takes it out of rejected/. Raises OSError."""
        path = self._write("trusted", certificate)
        with contextlib.suppress(OSError):
            (self.place / "rejected" / path.name).unlink()
        return path

    def reject(self, certificate: x509.Certificate) -> Path:
        """Keeps a refused certificate to be looked at. Raises OSError."""
        path = self.place / "rejected" / certificates.file_name(certificate)
        if not path.exists():
            path = self._write("rejected", certificate)
            found = sorted(self._files("rejected"), key=lambda each: each[1][1])
            for old, _ in found[: max(0, len(found) - MOST_REJECTED)]:
                old.unlink(missing_ok=True)
        return path

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self.place / name / certificates.file_name(certificate)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        durable.write(path, certificates.der(certificate), 0o644)
        return path

    def _files(self, name: str) -> Iterator[tuple[Path, tuple[str, int, int]]]:
        try:
            with os.scandir(self.place / name) as entries:
                paths = sorted(Path(each.path) for each in entries if not each.name.endswith(".new"))
        except FileNotFoundError:
            return
        for path in paths[:MOST_FILES]:
            with contextlib.suppress(OSError):  # it has just gone
                state = path.stat()
                yield path, (str(path), state.st_mtime_ns, state.st_size)

    def _certificates(self, name: str) -> list[x509.Certificate]:
        found: list[x509.Certificate] = []
        for path, state in self._files(name):
            try:
                if state[2] > certificates.MOST_BYTES:
                    raise ValueError("it is larger than a certificate")
                found += certificates.read(path.read_bytes())
            except (OSError, ValueError) as reason:
                self._unreadable(path, state, reason)
        return found

    def _crls(self) -> list[x509.CertificateRevocationList]:
        found = []
        for path, state in self._files("crl"):
            try:
                if state[2] > MOST_CRL_BYTES:
                    raise ValueError("it is larger than 16 MiB")
                content = path.read_bytes()
                pem = content.lstrip().startswith(b"-----BEGIN")
                found.append(x509.load_pem_x509_crl(content) if pem else x509.load_der_x509_crl(content))
            except (OSError, ValueError) as reason:
                self._unreadable(path, state, reason)
        return found

    def _unreadable(self, path: Path, state: tuple[str, int, int], reason: Exception) -> None:
        if state not in self._told:
            self._told.add(state)
            log.warning("%s is left out: %s", path, reason, extra={"event": "pki_file_unreadable", "path": str(path)})
