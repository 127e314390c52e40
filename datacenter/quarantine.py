"""Quarantine: a bounded folder for bytes that can't be stored, for people to look at."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from agent import _native
from agent.errors import BlockError
from agent.wire import Rejection


class Quarantine:
    """Keeps each different body once, under its SHA-256, up to `limit` files and `max_bytes`; what comes after is only
    counted."""

    def __init__(self, folder: Path, limit: int = 1000, max_bytes: int = 256 * 1024 * 1024) -> None:
        self._folder = folder
        self._limit = limit
        folder.mkdir(parents=True, exist_ok=True)
        for half in folder.glob("*.new"):
            half.unlink()
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        self._names = set(sizes)
        self._room = max_bytes - sum(sizes.values())

    def put(self, body: bytes) -> str:
        """Keeps `body`; returns its file name, or an empty text where there is no room."""
        name = f"{hashlib.sha256(body).hexdigest()[:32]}.bin"
        if name in self._names:
            return name
        if len(self._names) >= self._limit or len(body) > self._room:
            return ""
        half = self._folder / f"{name}.new"
        try:
            half.write_bytes(body)
            half.replace(self._folder / name)
        except OSError:
            # A full disk must not stop the blocks that are sound; and half a block tells nobody anything.
            with suppress(OSError):
                half.unlink()
            return ""
        self._names.add(name)
        self._room -= len(body)
        return name


def rejection(body: bytes, reason: Exception) -> tuple[UUID, Rejection] | None:
    """What to tell the agent of a block that can't be read: (stream, rejection).

    None where it may have been damaged on its way, or a later version made it: then it is worth sending again.
    """
    try:
        header = _native.header(body)
    except BlockError:
        return None
    return UUID(bytes=header.stream), Rejection(header.sequence, int.from_bytes(body[-4:], "little"), str(reason))
