"""The agent: the only place where its parts meet.

    collectors -> Intake (the core's buffer) -> seal -> Outbox -> Uplink

A reading is accepted when the core's buffer took it. It is safe when its block is committed in the outbox, at most
`seal.after` later. What a crash can lose is what was accepted and not yet sealed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from agent import clock
from agent.collectors import collectors
from agent.collectors.base import Collector, DeviceState, Inlet, supervise
from agent.config import Config, Device
from agent.delivery import Delivery
from agent.gate import Gate
from agent.intake import Intake
from agent.lanes import Deliver, Lanes
from agent.ledgers import Ledgers
from agent.lookup import Lookup
from agent.misfits import Misfits
from agent.outbox import Outbox
from agent.policy import Policy
from agent.reload import changes, needs_restart
from agent.sealer import Sealer
from agent.split import Split

log = logging.getLogger("headrace.agent")

LAST_SEAL = 10.0
"""Seconds that the last block may take where the agent ends by a mistake."""
CLOSING = 15.0
"""Seconds in which a device's connection is closed, its last requests included."""


class Pipeline:
    """One running agent. `run` is its life; `facts` may be asked at any time in between."""

    def __init__(
        self,
        config: Config,
        *,
        collect: Callable[[Sequence[Device], Inlet], list[Collector]] = collectors,
        open_outbox: Callable[..., Coroutine[Any, Any, Outbox]] = Gate.open,
        deliver: Deliver = Delivery.of,
    ) -> None:
        """`collect`, `open_outbox` and `deliver` make the parts: others are for simulations."""
        self._config = config
        self._intake = Intake(config.tags, config.seal.bytes)
        self._lanes = Lanes(config, open_outbox, deliver)
        self._ledgers = Ledgers()
        self._lookup = Lookup(config, self._ledgers.configured)
        self._stale = asyncio.Event()
        self._collectors: list[tuple[Collector, DeviceState]] = [
            (each, DeviceState(each.device.name, counters=each.counters))
            for each in collect(config.devices, self._intake)
        ]
        self._reloaded = False
        clock.GATEWAY.begin(trusted=config.agent.clock == "trusted")
        self._sealer = Sealer(self._intake, self._lanes, self._ledgers, clock.GATEWAY)
        self._started = time.monotonic()

    async def run(self, stop: asyncio.Event, *, drain: float = 1.5, ready: Callable[[], None] = lambda: None) -> None:
        """Collects until `stop` is set, then seals, stores, and delivers for up to `drain` seconds more.

        What is not delivered by then stays in the outbox for the next run. Raises what the outbox raises where it can't
        be opened, and any mistake of our own: then the service manager starts us again.
        """
        config = self._config
        await self._lookup.open(config)
        split = await self._split(self._lanes.policy)
        await self._lanes.open(config, split, self.facts)
        try:
            await self._ledgers.open(config)
            self._intake.buffer.regroup(split.groups)
            self._intake.restore(self._lanes.marks)
            facts = {"event": "agent_started", "agent": config.agent.id, "stream": str(self._lanes.main.outbox.stream)}
            log.info("%s: %d tags on %d devices", config.agent.id, len(config.tags), len(config.devices), extra=facts)
            await self._work(stop, drain, ready)
        finally:
            await self._ledgers.close()
            await self._lanes.close()
            log.info("stopped", extra={"event": "agent_stopped"})

    async def _work(self, stop: asyncio.Event, drain: float, ready: Callable[[], None]) -> None:
        halt = asyncio.Event()
        seal = self._config.seal
        # Not one of the group: where another task fails, or we are cancelled, what was accepted is stored all the same.
        sealing = asyncio.create_task(self._sealer.run(halt, after=seal.after, size=seal.bytes), name="sealer")
        try:
            await self._work_beside(sealing, halt, stop, drain, ready)
        finally:
            halt.set()
            self._intake.ripe.set()
            await asyncio.wait([sealing], timeout=LAST_SEAL)
            if sealing.done():
                sealing.cancelled() or sealing.exception()  # whoever waited for it has raised it
            else:
                lost = self._intake.buffer.stats()["pending_readings"]
                text = "the last block could not be stored within %g s"
                log.error(text, LAST_SEAL, extra={"event": "readings_lost", "lost": lost or -1})
                sealing.cancel()

    async def _work_beside(
        self,
        sealing: asyncio.Task[None],
        halt: asyncio.Event,
        stop: asyncio.Event,
        drain: float,
        ready: Callable[[], None],
    ) -> None:
        halt_sending = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(_outcome(sealing), name="sealer's outcome")
            looking = group.create_task(self._lookup.run(halt, self._stale.set), name="lookup")
            binding = group.create_task(self._bind_loop(), name="binder")
            misfits = group.create_task(Misfits(lambda: self._config.tags, self._intake.buffer).run(), name="misfits")
            await _either(group.create_task(self._lookup.settle(), name="first records"), stop)
            sending = [
                group.create_task(lane.delivery.run(halt_sending), name=f"uplink {lane.name}") for lane in self._lanes
            ]
            reading = [
                group.create_task(supervise(each, self._intake, state), name=f"collector {state.name}")
                for each, state in self._collectors
            ]
            ready()
            await stop.wait()
            await _end(reading)
            # Only now is everything pushed that will be: the last block is sealed, then its delivery is awaited.
            binding.cancel()
            misfits.cancel()
            halt.set()
            self._intake.ripe.set()
            await asyncio.shield(sealing)
            await looking
            await asyncio.gather(*(lane.delivery.drain(drain) for lane in self._lanes))
            halt_sending.set()
            await asyncio.gather(*sending)

    def reload(self, config: Config) -> list[str]:
        """Takes a changed config from the next block on. Returns what in it needs a restart: then nothing is taken."""
        if wrong := needs_restart(self._config, config):
            self._ledgers.configured("refused", {"needs_restart": wrong})
            return wrong
        self._ledgers.reloaded(config, list(changes(self._config, config)))
        self._config = config
        self._reloaded = True
        self._stale.set()
        return []

    async def _bind_loop(self) -> None:
        """Asks for a new epoch where the config or the resolver has something new."""
        while True:
            await self._stale.wait()
            self._stale.clear()
            reloaded, self._reloaded = self._reloaded, False
            if reloaded:
                await self._lookup.load(self._config)
            policy = Policy(self._config.egress, self._config.uplink)
            self._sealer.ask(await self._split(policy), policy)

    async def _split(self, policy: Policy) -> Split:
        # A hundred thousand tags take a second: the loop goes on in the meantime.
        return await asyncio.to_thread(lambda: Split.of(self._lookup.catalog(self._config.catalog()), policy))

    def facts(self) -> dict[str, Any]:
        """Counters of everything, for the status page, logs and `headrace run --json`."""
        stats = self._intake.buffer.stats()
        main, others = self._lanes.main, [lane for lane in self._lanes if lane is not self._lanes.main]
        return {
            "agent": self._config.agent.id,
            "stream": str(main.outbox.stream),
            "seconds": round(time.monotonic() - self._started, 1),
            "collecting": self._intake.is_open,
            "since_seal": round(time.monotonic() - self._sealer.looked, 1),
            **stats,
            "clock": {**clock.GATEWAY.facts(), "corrections": self._sealer.corrections},
            "outbox": main.outbox.facts(),
            "uplink": main.delivery.facts(),
            **{lane.name: {"outbox": lane.outbox.facts(), "uplink": lane.delivery.facts()} for lane in others},
            "egress": self._lanes.facts(),
            "resolver": self._lookup.facts(),
            "audit": self._ledgers.facts(),
            "devices": {state.name: state.facts() for _, state in self._collectors},
        }


async def _end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancels tasks until they end: libraries have swallowed a cancellation, and would go on for ever."""
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=CLOSING)
        if going:
            names = ", ".join(sorted(task.get_name() for task in going))
            log.warning("still going: %s; told again to end", names, extra={"event": "slow_end", "tasks": len(going)})


async def _either(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    """Waits for a task, but where a stop is asked for cancels it."""
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        stopping.cancel()


async def _outcome(task: asyncio.Task[None]) -> None:
    """Ends as a task does, and leaves it alone where it is itself cancelled."""
    await asyncio.shield(task)
