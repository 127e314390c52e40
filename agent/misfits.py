"""Misfits: tags whose device has another type than the tag list says, each told once.

Their readings are kept without a value, as BadTypeMismatch: nobody may notice for weeks that a number is missing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from agent._native import Buffer
from agent.model import StatusCode, Tag

FIRST_LOOK, LONGEST_PAUSE = 5.0, 600.0
"""Seconds. Every look asks for the last reading of every tag: some 20 ms with a hundred thousand of them."""
NAMED = 5

log = logging.getLogger("headrace.agent")


class Misfits:
    """The tags that were told."""

    def __init__(self, tags: Callable[[], Sequence[Tag]], buffer: Buffer) -> None:
        """`tags` gives those of now: a changed config has others by the same numbers."""
        self._tags = tags
        self._buffer = buffer
        self._count = 0
        self._told: set[int] = set()

    async def run(self) -> None:
        """Looks now and then, ever more rarely, until it is cancelled."""
        pause = FIRST_LOOK
        while True:
            await asyncio.sleep(pause)
            self.look()
            pause = min(2 * pause, LONGEST_PAUSE)

    def look(self) -> None:
        """Tells of tags that did not fit since the last time, and of those that fit again."""
        count = self._buffer.stats()["mistyped"]
        if count == self._count and not self._told:
            return
        grew, self._count, tags = count != self._count, count, self._tags()
        known = [tag for tag, *_, quality in self._buffer.latest() if quality == StatusCode.BAD_TYPE_MISMATCH]
        if grew and (found := [tags[tag] for tag in known if tag not in self._told]):
            names = ", ".join(f"{tag.device}.{tag.name} ({tag.type})" for tag in found[:NAMED])
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            text = "not of the type that the tag list says: %s%s; kept without a value until the list has the right one"
            log.warning(text, names, more, extra={"event": "type_mismatch", "tags": len(found)})
            self._told.update(tag.index for tag in found)
        if again := self._told.difference(known):
            facts = {"event": "type_fits_again", "tags": len(again)}
            names = ", ".join(f"{tags[tag].device}.{tags[tag].name}" for tag in sorted(again)[:NAMED])
            log.info("of the right type again: %s", names, extra=facts)
            self._told -= again
