"""The subscriptions to several brokers: an agent may be at any of them, so the data center is at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from datacenter.subscription import Subscription


class Subscriptions:
    """As one. What agents send twice is stored once, so it does no harm where the brokers share their messages."""

    def __init__(self, each: Sequence[Subscription]) -> None:
        self._each = list(each)

    @property
    def connected(self) -> bool:
        """Whether at least one broker is there."""
        return any(each.connected for each in self._each)

    def publish(self, topic: str, payload: bytes) -> None:
        """Sends to every broker that is there, from any thread, without waiting."""
        for each in self._each:
            each.publish(topic, payload)

    async def run(self, stop: asyncio.Event) -> None:
        """Keeps all of them until `stop`."""
        async with asyncio.TaskGroup() as group:
            for each in self._each:
                group.create_task(each.run(stop))
