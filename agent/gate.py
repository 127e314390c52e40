"""The gate between an outbox and its uplink: what was sealed before the policy changed is judged again on its way out.

A reading that may no longer leave is taken out of its block; where nothing is left a gap stands in its place. What is
sealed under the policy of now passes untouched, so a plant whose policy never changes pays one look-up a block.
"""

from __future__ import annotations

import asyncio
import logging

from agent import verdict
from agent.entry import Entry
from agent.errors import BlockError, OutboxFull
from agent.outbox import Outbox
from agent.policy import Policy
from agent.split import Split
from agent.verdict import Judged, Verdicts

log = logging.getLogger("headrace.egress")


class Gate(Outbox):
    """An outbox that hands out only what may leave on its uplink. To be told of every policy with `admit`."""

    _verdicts: Verdicts
    withheld = 0
    """Readings taken out on their way, since the start."""
    _counted = 0

    def admit(self, uplink: str, policy: Policy, split: Split) -> None:
        """From the next `peek` on, this policy and these labels hold."""
        free = [split.epoch(uplink)]
        self._verdicts = Verdicts(
            lambda tag: policy.refusal(tag, uplink), split.catalog.tags, everything=policy.open, free=free
        )

    async def peek(self, after: int, limit: int, max_bytes: int) -> list[Entry]:
        entries = await super().peek(after, limit, max_bytes)
        while True:
            verdicts = self._verdicts
            try:
                passed = [await self._pass(entry, verdicts) for entry in entries]
            except OutboxFull:
                return []  # a catalog can't be read now; that is no reason to hold anything back for ever
            if verdicts is self._verdicts:  # else the policy changed in the meantime
                return passed

    async def catalog(self, epoch: int) -> bytes | None:
        """Of an epoch that holds what may not leave: none."""
        verdicts = self._verdicts
        if (made := verdicts.catalogs.get(epoch)) is not None:
            return made
        found = await super().catalog(epoch)
        if found is not None and epoch not in verdicts:
            await _judge(verdicts, epoch, found)
        return None if epoch in verdicts and verdicts.of(epoch) else found

    async def _pass(self, entry: Entry, verdicts: Verdicts) -> Entry:
        if entry.gap:
            return entry
        if entry.epoch not in verdicts:
            await _judge(verdicts, entry.epoch, await self._kept_catalog(entry.epoch))
        judged = verdicts.of(entry.epoch)
        if judged is None:
            return entry
        # The whole of it in a thread: decoding and sealing take milliseconds.
        rest, readings = await asyncio.to_thread(_rest, entry, judged, self.stream.bytes)
        if entry.sequence > self._counted:
            self._counted = entry.sequence
            self.withheld += readings
        return rest


async def _judge(verdicts: Verdicts, epoch: int, body: bytes | None) -> None:
    """Which tags of an epoch may leave. Where nobody knows what they are, none may unless everything may."""
    refused = await asyncio.to_thread(verdicts.learn, epoch, body)
    if body is None and verdicts.of(epoch):
        log.error(
            "There is no catalog of epoch %016x, so nobody knows what of its blocks may leave: gaps go in their place.",
            epoch,
            extra={"event": "egress_withheld", "epoch": f"{epoch:016x}", "lost": -1},
        )
    if refused:
        log.warning(
            "%d tags of epoch %016x may no longer leave; their readings are taken out of the blocks that wait.",
            refused,
            epoch,
            extra={"event": "egress_withheld", "epoch": f"{epoch:016x}", "tags": refused},
        )


def _rest(entry: Entry, judged: Judged, stream: bytes) -> tuple[Entry, int]:
    try:
        return verdict.rest(entry, judged)
    except BlockError as reason:
        # What can't be read can't be known to hold nothing forbidden.
        facts = {"event": "readings_lost", "lost": entry.readings, "sequence": entry.sequence}
        log.error("Block %d can't be read, so it stays here: %s.", entry.sequence, reason, extra=facts)
        return verdict.gap(entry, judged, stream, entry.readings), 0
