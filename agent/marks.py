"""What collectors remember of how far they are, by name: written with the blocks that it is about, or not at all."""

from __future__ import annotations

from collections.abc import Mapping

from agent import _native
from agent.quota import Rows


async def read(rows: Rows) -> dict[str, bytes]:
    """The marks that were written last; one that was damaged is as if it had never been."""
    found = await rows("SELECT name, crc, body FROM mark")
    return {name: body for name, crc, body in found if type(body) is bytes and _native.crc32c(body) == crc}


async def keep(rows: Rows, marks: Mapping[str, bytes]) -> None:
    """Within a transaction, writes marks over those of the same names."""
    for name, body in marks.items():
        await rows("INSERT OR REPLACE INTO mark VALUES (?, ?, ?)", (name, _native.crc32c(body), body))
