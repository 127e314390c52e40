"""Quarantine: a bounded folder for bytes that can't be stored, for people to look at."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path


class Quarantine:
    """Keeps each different body once, under its SHA-256, up to `limit` files; what comes after is only counted."""

    def __init__(self, folder: Path, limit: int = 1000) -> None:
        self._folder = folder
        self._limit = limit
        folder.mkdir(parents=True, exist_ok=True)
        self._names = {path.name for path in folder.iterdir()}

    def put(self, body: bytes) -> str:
        """Keeps `body`; returns its file name, or an empty text where there is no room."""
        name = f"{hashlib.sha256(body).hexdigest()[:32]}.bin"
        if name in self._names:
            return name
        if len(self._names) >= self._limit:
            return ""
        # A full disk must not stop the blocks that are sound.
        with suppress(OSError):
            (self._folder / name).write_bytes(body)
            self._names.add(name)
            return name
        return ""
