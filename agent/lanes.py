"""The ways out: each uplink with the outbox that feeds it, and the split of the tags between them.

There is one, `main`, and where the config has [egress.level3] a second with a broker, an outbox, a directory and a
stream of its own. Nothing that is on one is ever on the other.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from agent.config import Config
from agent.delivery import Delivery
from agent.findings import uplinks
from agent.gate import Gate
from agent.outbox import Outbox
from agent.policy import LEVEL3, MAIN, Policy
from agent.split import Group, Split
from agent.tables import Uplink
from agent.wire import State

Deliver: TypeAlias = Callable[[Config, Outbox, Callable[[], State], Uplink | None], Delivery]


@dataclass(slots=True)
class Lane:
    """One way out."""

    name: str
    outbox: Gate
    delivery: Delivery
    epoch: int = 0


class Lanes:
    """All ways out. `open`, then `switch` for each epoch, then `close`."""

    def __init__(
        self,
        config: Config,
        open_outbox: Callable[..., Awaitable[Outbox]] = Gate.open,
        deliver: Deliver = Delivery.of,
    ) -> None:
        """`open_outbox` gives a Gate, and `deliver` what empties it: others are for simulations."""
        self._open, self._deliver = open_outbox, deliver
        self.policy = Policy(config.egress, uplinks(config.egress, config.uplink))
        self.split: Split
        self._lanes: dict[str, Lane] = {}
        self._allowed: Counter[str] = Counter()
        self._withheld: Counter[str] = Counter()

    async def open(self, config: Config, split: Split, facts: Callable[[], dict[str, Any]]) -> None:
        """Opens every outbox. Raises what an outbox raises; then none is left open."""
        tables = {MAIN: config.uplink}
        if config.egress and config.egress.level3:
            tables[LEVEL3] = config.egress.level3
        try:
            for name, table in tables.items():
                # A directory of its own, so that level 3 can lie on a disk of its own.
                place = config.agent.data_dir / ("outbox.db" if name == MAIN else f"{name}/outbox.db")
                limits = config.outbox
                outbox = cast("Gate", await self._open(place, max_bytes=limits.max_bytes, when_full=limits.when_full))
                state = self._state(name, facts)
                self._lanes[name] = Lane(name, outbox, self._deliver(config, outbox, state, table))
            await self.switch(split, self.policy)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await asyncio.gather(*(lane.outbox.close() for lane in self))

    def __iter__(self) -> Any:
        return iter(self._lanes.values())

    @property
    def main(self) -> Lane:
        return self._lanes[MAIN]

    async def switch(self, split: Split, policy: Policy) -> None:
        """From here on, what is sealed belongs to this split; what waits is judged by this policy.

        Raises OutboxFull where a disk takes no writes now: then only the judging has changed.
        """
        for lane in self._lanes.values():
            lane.outbox.admit(lane.name, policy, split)
        for lane in self._lanes.values():
            await lane.outbox.keep_catalog(split.epoch(lane.name), split.bodies[lane.name])
        for lane in self._lanes.values():
            lane.epoch = split.epoch(lane.name)
        self.split, self.policy = split, policy

    def lane(self, group: Group) -> Lane | None:
        """Where a group's blocks go; None for nowhere."""
        return self._lanes[group.way.uplink] if group.way.uplink else None

    def count(self, group: Group, readings: int) -> None:
        """Counts what was decided for the readings of a block."""
        if group.way.uplink:
            self._allowed[f"{group.way.uplink}, level {group.level or 'none'}"] += readings
        else:
            self._withheld[group.way.reason] += readings

    def facts(self) -> dict[str, Any]:
        """Readings by what was decided; `withheld_on_the_way` were sealed before the policy forbade them."""
        return {
            "allowed": sum(self._allowed.values()),
            "withheld": sum(self._withheld.values()),
            "withheld_on_the_way": sum(lane.outbox.withheld for lane in self._lanes.values()),
            "allowed_by": dict(self._allowed),
            "withheld_by": dict(self._withheld),
        }

    def _state(self, name: str, facts: Callable[[], dict[str, Any]]) -> Callable[[], State]:
        def state() -> State:
            lane = self._lanes[name]
            return State(True, lane.outbox.stream, lane.epoch, facts())

        return state
