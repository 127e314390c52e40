"""The gate between an outbox and its uplink: what was sealed before the policy changed is judged again on its way out.

A reading that may no longer leave is taken out of its block; where nothing is left a gap stands in its place. What is
sealed under the policy of now passes untouched, so a plant whose policy never changes pays one look-up a block.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent import _native
from agent.entry import Entry
from agent.errors import BlockError
from agent.model import Tag, ValueType
from agent.outbox import Outbox
from agent.policy import Policy
from agent.split import Split, only
from agent.wire import Catalog, CatalogTag, epoch_of

log = logging.getLogger("headrace.egress")

WITHHELD = "withheld by the egress policy"


@dataclass(frozen=True, slots=True)
class _Judged:
    """An epoch of which not everything may leave: its tags as the core takes them, and the catalog of the rest."""

    tags: Sequence[Tag]
    allowed: frozenset[int]
    epoch: int


class Gate(Outbox):
    """An outbox that hands out only what may leave on its uplink. To be told of every policy with `admit`."""

    _policy: Policy
    _uplink: str
    withheld = 0
    """Readings taken out on their way, since the start."""
    _counted = 0

    def admit(self, uplink: str, policy: Policy, split: Split) -> None:
        """From the next `peek` on, this policy and these labels hold."""
        self._uplink, self._policy = uplink, policy
        self._catalog = split.catalog
        self._labels: Mapping[str, CatalogTag] | None = None
        self._judged: dict[int, _Judged | None] = {split.epoch(uplink): None}
        self._made: dict[int, bytes] = {}

    async def peek(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        return [await self._pass(entry) for entry in await super().peek(after, limit, max_bytes)]

    async def catalog(self, epoch: int) -> bytes | None:
        """Of an epoch that holds what may not leave: none."""
        if epoch in self._made:
            return self._made[epoch]
        found = await super().catalog(epoch)
        if found is not None and epoch not in self._judged:
            await self._judge(epoch, found)
        return None if self._judged.get(epoch) else found

    async def _pass(self, entry: Entry) -> Entry:
        if entry.gap:
            return entry
        if entry.epoch not in self._judged:
            await self._judge(entry.epoch, await super().catalog(entry.epoch))
        judged = self._judged[entry.epoch]
        if judged is None:
            return entry
        # The whole of it in a thread: decoding and sealing take milliseconds.
        rest, readings = await asyncio.to_thread(_rest, entry, judged, self.stream.bytes)
        if entry.sequence > self._counted:
            self._counted = entry.sequence
            self.withheld += readings
        return rest

    async def _judge(self, epoch: int, body: bytes | None) -> None:
        """Which tags of an epoch may leave. Where nobody knows what they are, none may unless everything may."""
        if body is None:
            self._judged[epoch] = None if self._policy.open else _Judged((), frozenset(), epoch)
            return
        if self._policy.open:
            self._judged[epoch] = None
            return
        catalog = await asyncio.to_thread(Catalog.decode, body)
        if self._labels is None:  # only now: a policy that never changed has nothing to judge
            self._labels = {tag.identifier: tag for tag in self._catalog.tags}
        rest = [tag for tag in catalog.tags if not self._refused(tag)]
        if len(rest) == len(catalog.tags):
            self._judged[epoch] = None
            return
        made = only(catalog, rest)
        self._made[epoch_of(made)] = made
        self._judged[epoch] = _Judged(_specs(catalog), frozenset(tag.tag for tag in rest), epoch_of(made))
        facts = {"event": "egress_withheld", "epoch": f"{epoch:016x}", "tags": len(catalog.tags) - len(rest)}
        log.warning(
            "%d tags of epoch %016x may no longer leave; their readings are taken out of the blocks that wait.",
            len(catalog.tags) - len(rest),
            epoch,
            extra=facts,
        )

    def _refused(self, tag: CatalogTag) -> bool:
        """The stricter of what the tag was labelled then and is labelled now."""
        now = (self._labels or {}).get(tag.identifier)
        level = max(tag.level or 1, (now.level if now else None) or 1)
        both = [replace(tag, level=level), *([replace(now, level=level)] if now else [])]
        return any(self._policy.refusal(each, self._uplink) for each in both)


def _specs(catalog: Catalog) -> list[Tag]:
    """Tags by their index, for a buffer that takes readings as they are."""
    found = {tag.tag: ValueType(tag.type) for tag in catalog.tags}
    kinds = [found.get(index, ValueType.BOOL) for index in range(max(found, default=-1) + 1)]
    return [Tag(index, "", "", "", kind, "") for index, kind in enumerate(kinds)]


def _rest(entry: Entry, judged: _Judged, stream: bytes) -> tuple[Entry, int]:
    """The entry without what may not leave, and how many readings were taken out."""
    try:
        readings = _native.decode(entry.body)
    except BlockError as reason:
        # What can't be read can't be known to hold nothing forbidden.
        facts = {"event": "readings_lost", "lost": entry.readings, "sequence": entry.sequence}
        log.error("Block %d can't be read, so it stays here: %s.", entry.sequence, reason, extra=facts)
        return _gap(entry, judged, stream, entry.readings), 0
    header = readings.header
    rows = [row for row in readings.rows() if row[0] in judged.allowed]
    out = header.readings - len(rows)
    if not rows:
        return _gap(entry, judged, header.stream, out), out
    buffer = _native.Buffer(judged.tags, 128 * 1024 * 1024)
    buffer.push(rows)
    block = buffer.seal(
        stream=header.stream,
        sequence=header.sequence,
        epoch=judged.epoch,
        sealed_ns=header.sealed_ns,
        synchronized=header.synchronized,
    )
    body = block.data if block else b""
    return replace(entry, epoch=judged.epoch, readings=len(rows), body=body), out


def _gap(entry: Entry, judged: _Judged, stream: bytes, readings: int) -> Entry:
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
