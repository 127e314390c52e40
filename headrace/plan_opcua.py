"""What one OPC UA server is asked to watch, and with `headrace plan --connect` what it says that it can take."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.collectors.opcua.link import FAULTS, Link, said
from agent.collectors.opcua.memory import Memory
from agent.collectors.opcua.profile import CHUNK, EVERY_CHANGE, MOST_QUEUED, queue_size
from agent.collectors.opcua.security import Security
from agent.config import OpcUaDevice
from agent.errors import NotConnected
from headrace.linetime import period

STATED = {
    "max_monitored_items_per_call": 11714,
    "max_monitored_items_per_subscription": 24104,
    "max_monitored_items": 24097,
    "max_monitored_items_queue_size": 31916,
    "max_nodes_per_read": 11705,
    "max_sessions": 24095,
    "min_supported_sample_rate": 2272,
}
"""Our names of the server's ServerCapabilities and OperationLimits, and their nodes (OPC 10000-5, 6.3.2 and 6.3.11)."""
AT_ONCE = 8
"""Servers that are asked at the same time."""


@dataclass(slots=True)
class Subscription:
    """What one server is asked to watch, and why it can't work."""

    device: OpcUaDevice
    why: str = ""
    stated: dict[str, float] | None = None
    """What the server says of itself, by the names of STATED, 0 for no limit; None where it was not asked."""
    notes: list[str] = field(default_factory=list)
    """What works, and not as it was asked for."""

    @property
    def step(self) -> float:
        """Seconds from one value of an item to the next that are reckoned with."""
        return self.device.sampling or EVERY_CHANGE

    @property
    def polled(self) -> bool:
        return self.device.mode == "poll"

    @property
    def queue(self) -> int:
        """Values that the server is asked to queue for each item, or fewer where it says that it can't."""
        asked = queue_size(self.device.outage, self.device.sampling)
        most = int((self.stated or {}).get("max_monitored_items_queue_size", 0))
        return min(asked, most) if most else asked

    @property
    def sampling(self) -> float:
        """Seconds between the server's looks: its own shortest interval where it states a longer one than is asked."""
        fastest = (self.stated or {}).get("min_supported_sample_rate", 0.0) / 1000
        return max(self.step, fastest) if self.device.sampling else self.step

    @property
    def covered(self) -> float:
        """Seconds of outage that the queues hold, if every item changes at every look."""
        return (self.queue - 1) * self.sampling

    @property
    def values_per_second(self) -> float:
        return len(self.device.tags) / self.sampling

    @property
    def notifications_per_second(self) -> float:
        return 0.0 if self.polled else min(1 / self.device.publish, self.values_per_second)

    def judge(self) -> None:
        """Says what can't work, and what works otherwise, of what the server states."""
        device, stated, count = self.device, self.stated or {}, len(self.device.tags)
        if self.polled:
            return
        for name, of in (("max_monitored_items_per_subscription", "a subscription"), ("max_monitored_items", "all")):
            most = int(stated.get(name, 0))
            if 0 < most < count:
                self.why = (
                    f"{count} monitored items, and the server allows {most} for {of}: leave out {count - most} of "
                    'the tags, or write mode = "poll"'
                )
                return
        if device.sampling and self.sampling > device.sampling:
            self.notes.append(
                f"sampled every {period(self.sampling)}, the server's fastest, not every {period(device.sampling)}"
            )
        if self.covered < device.outage:
            most = min(MOST_QUEUED, int(stated.get("max_monitored_items_queue_size", 0)) or MOST_QUEUED)
            self.notes.append(
                f"queues of {most} values cover {period(self.covered)} of an outage, not {period(device.outage)}"
            )

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": self.device.name,
            "protocol": "opcua",
            "monitored_items": len(self.device.tags),
            "values_per_second": round(self.values_per_second, 3),
            "notifications_per_second": round(self.notifications_per_second, 3),
        }
        if not self.polled:
            found |= {"queue_size": self.queue, "covered_seconds": round(self.covered, 3)}
        if self.stated is not None:
            found["server"] = self.stated
        if self.notes:
            found["notes"] = self.notes
        found["ok"] = not self.why
        return found | ({"why": self.why} if self.why else {})

    def lines(self) -> Iterator[str]:
        device, count = self.device, len(self.device.tags)
        if self.polled:
            yield f"{device.name}: opcua, {count} nodes read at {device.url}"
            yield f"  every {period(self.step)}: {self.values_per_second:.6g} values/s"
        else:
            yield f"{device.name}: opcua, {count} monitored items at {device.url}"
            looks = f"sampled every {period(device.sampling)}" if device.sampling else "every change reported"
            yield f"  {looks}, published every {period(device.publish)}"
            assumed = "" if device.sampling else f", if each changes every {period(EVERY_CHANGE)}"
            yield (
                f"  at most {self.notifications_per_second:.6g} notifications/s with "
                f"{self.values_per_second:.6g} values/s{assumed}; queues of {self.queue} values cover an outage of "
                f"{period(self.covered)}"
            )
        if self.stated is not None:
            named = ", ".join(f"{name} {value:g}" for name, value in self.stated.items() if value)
            calls = math.ceil(count / min(int(self.stated["max_monitored_items_per_call"]) or CHUNK, CHUNK))
            yield f"  the server states: {named or 'no limits'}"
            if not self.polled:
                yield f"  {calls} call{'s' * (calls != 1)} to create the items"
        for note in self.notes:
            yield f"  NOTE: {note}"
        if self.why:
            yield f"  CAN'T WORK: {self.why}"


def ask(subscriptions: Sequence[Subscription]) -> None:
    """Asks each server what it can take, with the security and the user of the agent, and judges."""

    async def one(each: Subscription, turn: asyncio.Semaphore) -> None:
        async with turn:
            try:
                each.stated = await _stated(each.device)
            except (NotConnected, *FAULTS) as reason:
                each.why = f"can't connect to {each.device.url}: {said(reason)}"
            else:
                each.notes.clear()
                each.judge()

    async def everything() -> None:
        turn = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(one(each, turn) for each in subscriptions))

    asyncio.run(everything())


async def _stated(device: OpcUaDevice) -> dict[str, float]:
    """What a server says of itself. Raises NotConnected and FAULTS."""
    link = Link(device, Security(device, {}), lambda _: None)
    try:
        await link.open()
        await link.begin(Memory())
        found = await link.numbers(list(STATED.values()))
        with contextlib.suppress(*FAULTS):
            await link.leave()
    finally:
        await link.close()
    return {name: value or 0 for name, value in zip(STATED, found, strict=True)}


__all__ = ["Subscription", "ask"]
