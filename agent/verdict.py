"""Verdicts: what of blocks that were sealed before, under labels of their time, may leave now.

Asked once for each epoch, of the catalog that its blocks were sealed under. What is sealed under the policy of now is
known to be free (`free`), so a plant whose policy never changes pays one look-up a block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from agent import _native
from agent.entry import Entry
from agent.errors import BlockError
from agent.model import Tag, ValueType
from agent.split import only
from agent.wire import Catalog, CatalogTag, epoch_of

log = logging.getLogger("headrace.egress")

WITHHELD = "withheld by the egress policy"
UNKNOWN = "the catalog is unknown, and so is what may leave"


@dataclass(frozen=True, slots=True)
class Judged:
    """An epoch of which not everything may leave: its tags as the core takes them, those that may, the epoch that these
    make, and why the others may not."""

    tags: Sequence[Tag]
    allowed: frozenset[int]
    epoch: int
    reasons: tuple[str, ...]


class Verdicts:
    """`learn` each epoch, then ask about its blocks."""

    def __init__(
        self,
        refusal: Callable[[CatalogTag], str],
        tags: Iterable[CatalogTag],
        *,
        everything: bool,
        free: Iterable[int] = (),
    ) -> None:
        """`refusal` says why a tag may not leave, `tags` are labelled as they are now, `everything` is whether nothing
        can be refused. Epochs in `free` hold nothing but what may leave.
        """
        self._refusal = refusal
        self._everything = everything
        self._tags = tags
        self._now: dict[str, list[CatalogTag]] | None = None
        self._found: dict[int, Judged | None] = dict.fromkeys(free)
        self.catalogs: dict[int, bytes] = {}
        """The catalogs of what may leave of those epochs of which not everything may."""

    def __contains__(self, epoch: int) -> bool:
        """Whether the epoch was learned."""
        return epoch in self._found

    def of(self, epoch: int) -> Judged | None:
        """None where everything of an epoch that was learned may leave."""
        return self._found[epoch]

    def learn(self, epoch: int, catalog: bytes | None) -> int:
        """Judges an epoch. Without its catalog nothing of it may leave, unless everything may.

        Returns how many tags may not leave. Raises ValueError for what is no catalog.
        """
        if self._everything:
            self._found[epoch] = None
            return 0
        if catalog is None:
            self._found[epoch] = Judged((), frozenset(), epoch, (UNKNOWN,))
            return 0
        found = Catalog.decode(catalog)
        refused = {tag.tag: reason for tag in found.tags if (reason := self._refused(tag))}
        if not refused:
            self._found[epoch] = None
            return 0
        rest = [tag for tag in found.tags if tag.tag not in refused]
        made = only(found, rest)
        allowed, reasons = frozenset(tag.tag for tag in rest), tuple(sorted(set(refused.values())))
        self._found[epoch] = Judged(_specs(found), allowed, epoch_of(made), reasons)
        self.catalogs[epoch_of(made)] = made
        return len(refused)

    def _refused(self, tag: CatalogTag) -> str:
        """The stricter of what the tag was labelled then and is labelled now."""
        if self._now is None:  # only now: a policy that never changed has nothing to judge
            self._now = {}
            for each in self._tags:
                self._now.setdefault(each.identifier, []).append(each)
        now = self._now.get(tag.identifier, [])
        level = max([tag.level or 1, *(each.level or 1 for each in now)])
        return next((reason for each in (tag, *now) if (reason := self._refusal(replace(each, level=level)))), "")


def rest(entry: Entry, judged: Judged) -> tuple[Entry, int]:
    """The entry without what may not leave, a gap where nothing is left; and how many readings were taken out.

    A correction holds no readings, and passes. Takes milliseconds. Raises BlockError for what is no block.
    """
    if _native.header(entry.body).kind != "readings":
        return replace(entry, epoch=judged.epoch), 0
    readings = _native.decode(entry.body)
    header = readings.header
    rows = [row for row in readings.rows() if row[0] in judged.allowed]
    out = header.readings - len(rows)
    if not rows:
        return gap(entry, judged, header.stream, out), out
    buffer = _native.Buffer(judged.tags, 128 * 1024 * 1024)
    buffer.push(rows)
    block = buffer.seal(
        stream=header.stream,
        sequence=header.sequence,
        epoch=judged.epoch,
        sealed_ns=header.sealed_ns,
        synchronized=header.synchronized,
    )
    if block is None:
        raise BlockError("what may leave of it can't be sealed")
    return replace(entry, epoch=judged.epoch, readings=len(rows), body=block.data), out


def gap(entry: Entry, judged: Judged, stream: bytes, readings: int) -> Entry:
    """What stands in the place of an entry of which nothing may leave."""
    block = _native.gap(
        stream=stream,
        first=entry.sequence,
        last=entry.last,
        epoch=judged.epoch,
        from_ns=entry.first_ns,
        to_ns=entry.last_ns,
        readings=readings,
        reason=WITHHELD,
        sealed_ns=entry.last_ns,
    )
    return replace(entry, epoch=judged.epoch, readings=readings, body=block.data, gap=True)


def _specs(catalog: Catalog) -> list[Tag]:
    """Tags by their index, for a buffer that takes readings as they are."""
    found = {tag.tag: ValueType(tag.type) for tag in catalog.tags}
    kinds = [found.get(index, ValueType.BOOL) for index in range(max(found, default=-1) + 1)]
    return [Tag(index, "", "", "", kind, "") for index, kind in enumerate(kinds)]
