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


def rejection(body: bytes, reason: Exception) -> tuple[UUID, Rejection] | None:
    """What to tell the agent of a block that can't be read: (stream, rejection).

    None where it may have been damaged on its way, or a later version made it: then it is worth sending again.
    """
    try:
        header = _native.header(body)
    except BlockError:
        return None
    return UUID(bytes=header.stream), Rejection(header.sequence, int.from_bytes(body[-4:], "little"), str(reason))
