"""The history of a virtual server's nodes (HistoryRead of raw values, OPC 10000-11, 6.5.3): nothing is stored, since
the plant is a function of time. It goes back to the server's first start, and at most an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncua import ua
from asyncua.server.history import HistoryStorageInterface

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST_NS = 3600 * 1_000_000_000
MOST = 1000
"""Values of one answer; the rest comes with its continuation point."""
_YIELD = 500
"""Steps after which others have their turn."""


class History(HistoryStorageInterface):
    """Of one server. `change` gives what a node's step showed, or None where it showed no change; `steps` the length
    of a node's steps in ns, or None of a node without a history; `reach` how far it goes, from and to.
    """

    def __init__(
        self,
        change: Callable[[ua.NodeId, int], ua.DataValue | None],
        steps: Callable[[ua.NodeId], int | None],
        reach: Callable[[], tuple[int, int]],
    ) -> None:
        super().__init__(MOST)
        self._change = change
        self._steps = steps
        self._reach = reach

    async def init(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def read_node_history(
        self, node_id: ua.NodeId, start: datetime | None, end: datetime | None, nb_values: int
    ) -> tuple[list[ua.DataValue], datetime | None]:
        """Changes from `start` to `end`, both included; backwards where `start` is left out or later. With the source
        time of the next one where there are more."""
        step_ns = self._steps(node_id)
        if step_ns is None:
            return [], None
        first_ns, last_ns = self._reach()
        begin, finish = _nanoseconds(start), _nanoseconds(end)
        backwards = begin is None or (finish is not None and finish < begin)
        low, high = (finish, begin) if backwards else (begin, finish)
        low = max(first_ns, first_ns if low is None else low)
        high = min(last_ns, last_ns if high is None else high)
        ks = range(-(-low // step_ns), high // step_ns + 1)
        most = min(nb_values or MOST, MOST)
        found: list[ua.DataValue] = []
        for count, k in enumerate(reversed(ks) if backwards else ks):
            if count % _YIELD == _YIELD - 1:
                await asyncio.sleep(0)
            if (value := self._change(node_id, k * step_ns)) is None:
                continue
            if len(found) == most:
                return found, EPOCH + timedelta(microseconds=k * step_ns // 1000)
            found.append(value)
        return found, None

    async def new_historized_node(self, node_id: ua.NodeId, period: timedelta | None, count: int = 0) -> None:
        """Every tag's node has a history."""

    async def save_node_value(self, node_id: ua.NodeId, datavalue: ua.DataValue) -> None:
        """The plant remembers by itself."""

    async def new_historized_event(
        self, source_id: ua.NodeId, evtypes: list[Any], period: timedelta | None, count: int = 0
    ) -> None:
        """There are no events."""

    async def save_event(self, event: Any) -> None:
        """There are no events."""

    async def read_event_history(
        self, source_id: ua.NodeId, start: datetime | None, end: datetime | None, nb_values: int, evfilter: Any
    ) -> tuple[list[Any], datetime | None]:
        """There are no events."""
        del source_id, start, end, nb_values, evfilter
        return [], None


def _nanoseconds(moment: datetime | None) -> int | None:
    """None also for the standard's "not given", which is 1601."""
    if moment is None:
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    found = (aware - EPOCH) // timedelta(microseconds=1) * 1000
    return found if found > 0 else None
