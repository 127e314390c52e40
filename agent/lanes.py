"""The ways out: each uplink with the outbox that feeds it, and the split of the tags between them.

There is one, `main`, and where the config has [egress.level3] a second with a broker, an outbox, a directory and a
stream of its own. Nothing that is on one is ever on the other; what they have of one moment both have (`agent.moment`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast
from uuid import UUID

from agent import _native, clock, doubts, moment
from agent.config import Config
from agent.delivery import Delivery
from agent.doubts import Doubts
from agent.gate import Gate
from agent.opening import opened
from agent.outbox import Outbox
from agent.policy import LEVEL3, MAIN, Policy
from agent.split import Group, Split
from agent.tables import Uplink
from agent.wire import State

log = logging.getLogger("headrace.agent")

Deliver: TypeAlias = Callable[[Config, Outbox, Callable[[], State], Uplink | None], Delivery]


def ways(config: Config) -> dict[str, Uplink]:
    """The uplinks that a config has, by name."""
    level3 = config.egress.level3 if config.egress else None
    return {MAIN: config.uplink, **({LEVEL3: level3} if level3 else {})}


def place(home: Path, uplink: str) -> Path:
    """Where the outbox of an uplink lies below the agent's directory."""
    # A directory of its own, so that level 3 can lie on a disk of its own.
    return home / ("outbox.db" if uplink == MAIN else f"{uplink}/outbox.db")


@dataclass(slots=True)
class Lane:
    """One way out. `doubts` are about the blocks of its own streams, and kept in its own outbox."""

    name: str
    outbox: Gate
    delivery: Delivery
    doubts: Doubts
    stream: UUID
    """Whose file has all that belongs into it beside the blocks: the catalog, and the marks."""
    epoch: int = 0

    async def take_back(self, first: int = 0) -> bool:
        """Takes back what is held, or what an earlier run held from the place `first` on. Raises OutboxFull."""
        self.doubts.take_back(first or self.outbox.last + 1)
        return await self.outbox.take_back({**moment.UNTIED, **self.doubts.mark()}, first)


class Lanes:
    """All ways out. `open`, then `switch` for each epoch, then `close`."""

    def __init__(
        self,
        config: Config,
        open_outbox: Callable[..., Coroutine[Any, Any, Outbox]] = Gate.open,
        deliver: Deliver = Delivery.of,
    ) -> None:
        """`open_outbox` gives a Gate, and `deliver` what empties it: others are for simulations."""
        self._open, self._deliver = open_outbox, deliver
        self.policy = Policy(config.egress, config.uplink)
        self.split: Split
        self.marks: Mapping[str, bytes] = {}
        """The collectors' marks that an earlier run left."""
        self._moment = 0
        self._lanes: dict[str, Lane] = {}
        self._allowed: Counter[str] = Counter()
        self._withheld: Counter[str] = Counter()

    async def open(self, config: Config, split: Split, facts: Callable[[], dict[str, Any]]) -> None:
        """Opens every outbox. Raises what an outbox raises; then none is left open."""
        boot = clock.boot()
        try:
            for name, table in ways(config).items():
                path, limits = place(config.agent.data_dir, name), config.outbox
                opening = self._open(path, max_bytes=limits.max_bytes, when_full=limits.when_full)
                outbox = cast("Gate", await opened(opening, Outbox.close))
                state = self._state(name, facts)
                delivery = self._deliver(config, outbox, state, table)
                self._lanes[name] = Lane(name, outbox, delivery, Doubts(boot), outbox.stream)
            await self._restore()
            await self.switch(split, self.policy)
        except BaseException:
            await self.close()
            raise

    async def _restore(self) -> None:
        """What an earlier run left: doubts, and a moment that it did not finish."""
        found = {}
        for lane in self:
            marks = await lane.outbox.marks()
            found[lane.name] = moment.Kept(lane.outbox.stream.bytes, lane.outbox.next_sequence, marks)
            lane.doubts.restore(marks.get(doubts.MARK))
        main = found[MAIN].marks
        self._moment = moment.number(main)
        self.marks = {name: body for name, body in main.items() if name not in (moment.MARK, doubts.MARK)}
        for lane in self.others:
            if first := moment.unfinished(found[lane.name], found[MAIN]):
                await lane.take_back(first)
                text = "the last moment of the run before was stored in the outbox of %s only, and is taken back"
                log.warning(text, lane.name, extra={"event": "moment_taken_back", "uplink": lane.name, "first": first})

    async def close(self) -> None:
        await asyncio.gather(*(lane.outbox.close() for lane in self))

    def __iter__(self) -> Any:
        return iter(self._lanes.values())

    @property
    def main(self) -> Lane:
        return self._lanes[MAIN]

    @property
    def others(self) -> list[Lane]:
        return [lane for lane in self._lanes.values() if lane.name != MAIN]

    def renewed(self) -> list[tuple[Lane, UUID]]:
        """The lanes whose outbox began a new stream, perhaps in a new file; with that stream."""
        return [(lane, lane.outbox.stream) for lane in self if lane.outbox.stream != lane.stream]

    async def refill(self, renewed: Sequence[tuple[Lane, UUID]]) -> None:
        """A new file gets what belongs into it beside blocks and the collectors' marks. Raises OutboxFull."""
        for lane, stream in renewed:
            await lane.outbox.keep_catalog(lane.epoch, self.split.bodies[lane.name][0])
            number = moment.numbered(self._moment) if lane is self.main else {}
            await lane.outbox.keep_marks(lane.doubts.mark() | number)
            lane.stream = stream

    def tie(self, lane: Lane, blocks: Sequence[_native.Block]) -> dict[str, bytes]:
        """The mark that goes with the blocks of a moment into another lane's outbox, where they are held."""
        main, stream = self.main.outbox.stream.hex, lane.outbox.stream.hex
        return moment.Tie(self._moment + 1, main, stream, blocks[0].sequence, blocks[-1].sequence).mark()

    def number(self) -> dict[str, bytes]:
        """The mark that goes into the main outbox with its part of that moment."""
        return moment.numbered(self._moment + 1)

    def finish(self, tied: Sequence[Lane]) -> None:
        """The main outbox has its part."""
        self._moment += 1
        for lane in tied:
            lane.outbox.release()
            lane.delivery.wake()

    async def switch(self, split: Split, policy: Policy) -> None:
        """From here on, what is sealed belongs to this split; what waits is judged by this policy.

        Raises OutboxFull where a catalog can't be stored: then the policy holds all the same, and the split does not.
        """
        for lane in self._lanes.values():
            lane.outbox.admit(lane.name, policy, split)
        for lane in self._lanes.values():
            await lane.outbox.keep_catalog(split.epoch(lane.name), split.bodies[lane.name][0])
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
