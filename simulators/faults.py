"""Faults on a schedule, from a file (docs/faults.md): what goes wrong with which device, when, and for how long.

`load` reads and checks the file, `Schedule` keeps the time. What a kind of fault does is up to its `Maker`: those of
`simulators.proxy` act on a device's line.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from agent.config import Config
from agent.devices import Device, Spans
from agent.document import Document, dotted
from agent.errors import ConfigError, Problem
from agent.quantity import seconds as duration
from agent.quantity import shown
from agent.table import Seconds, Table
from agent.wording import explain, likely
from simulators.mood import MODBUS, OPCUA, Ill, Wrong
from simulators.proxy import Fault, Kind, Proxy, Way

log = logging.getLogger("headrace.simulators")

KINDS: dict[str, str] = {
    **dict.fromkeys((kind.value for kind in Kind), "line"),
    **dict.fromkeys((kind.value for kind in Wrong), "device"),
}
"""Every kind of fault, and what it acts on. Who adds a kind gives `Schedule` a maker for what it acts on."""
MOST = 1000
"""[[fault]] tables of a file."""
USUAL = tuple(each.value for each in Wrong if each not in (Wrong.REBOOT, Wrong.CLOCK))
"""What goes wrong at random where nothing else is said."""
STREAMS = ("tcp", "tls", "rtu+tcp", "ascii+tcp", "opc.tcp")
"""Schemes of urls whose line is a TCP connection."""


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError(f"{shown(text)} is no kind of fault; {_nearest(text, KINDS)}")
    return text


def _nearest(word: str, known: Iterable[str]) -> str:
    return f"write {likely(word, known).rpartition('write ')[2]}"


def _moment(value: object) -> float:
    return 0.0 if value in (0, "0s") and not isinstance(value, bool) else duration(value)


Moment: TypeAlias = Annotated[float, BeforeValidator(_moment)]
"""Seconds, also none."""


def _signed(value: object) -> float:
    if isinstance(value, str) and value.startswith("-"):
        return -duration(value[1:])
    return _moment(value)


class _What(Table):
    """What a fault does, whenever it does it. Times are in seconds."""

    device: str = Field("*", min_length=1, examples=["press*"])
    """A name, or a pattern with * and ? and [abc]."""
    at: Moment = Field(0.0, examples=["10s"])
    """After the start."""
    direction: Literal["both", "up", "down"] = Field("both", examples=["up"])
    delay: Moment = Field(0.2, examples=["200ms"])
    jitter: Moment = Field(0.0, examples=["50ms"])
    rate: float = Field(100.0, ge=1, strict=False, examples=[100])
    """Bytes a second."""
    probability: float = Field(0.2, ge=0, le=1, strict=False, examples=[0.2])

    code: int = Field(4, ge=1, le=255, examples=[4])
    """Of an exception."""
    addresses: Spans = Field((), examples=[["hr:200-299"]])
    """Whose requests get the exception; left out: all."""
    offset: Annotated[float, BeforeValidator(_signed)] = Field(0.0, examples=["3s"])
    """By which a clock is ahead; or behind, with a minus."""
    drift: float = Field(0.0, ge=-100_000, le=100_000, strict=False, examples=[200])
    """What a clock gains, in parts per million."""

    def ill(self, kind: str) -> Ill:
        """The fault of a device."""
        return Ill(Wrong(kind), self.delay, self.code, self.addresses, self.offset, self.drift)


class FaultTable(_What):
    """One [[fault]]."""

    kind: Annotated[str, AfterValidator(_kind)] = Field(examples=["stall"])
    lasts: Seconds = Field(alias="for", examples=["3s"])
    every: Seconds | None = Field(None, examples=["1m"])
    """Once more each time that this has passed; left out: once."""


class RandomTable(_What):
    """One [[random]]: now and then one of some kinds of faults, for each of its devices by itself."""

    kinds: tuple[Annotated[str, AfterValidator(_kind)], ...] = Field(
        USUAL, min_length=1, strict=False, examples=[["away", "slow"]]
    )
    """Those that a device can have of them."""
    lasts: Seconds = Field(alias="for", examples=["3s"])
    """The longest; the shortest is a tenth of it."""
    every: Seconds = Field(examples=["1m"])
    """From the end of one to the beginning of the next, on average."""

    def next(self, chance: random.Random, kinds: Sequence[str]) -> tuple[float, FaultTable]:
        """How long nothing is wrong, and what is after that."""
        pause = chance.expovariate(1 / self.every)
        kind, lasts = chance.choice(kinds), chance.uniform(0.1, 1.0) * self.lasts
        same = {name: getattr(self, name) for name in _What.model_fields}
        return pause, FaultTable.model_construct(**same, kind=kind, lasts=lasts, every=None)


class _File(Table):
    seed: int = Field(1, examples=[1])
    faults: tuple[FaultTable, ...] = Field((), alias="fault", max_length=MOST, strict=False)
    random: tuple[RandomTable, ...] = Field((), max_length=MOST, strict=False)


class Act(Protocol):
    """One fault of one device. `begin` and `end` take turns, `begin` first."""

    async def begin(self) -> None: ...
    async def end(self) -> None: ...


Maker: TypeAlias = Callable[[str, FaultTable], Act]
"""Makes the act of a device's name."""


class Faults:
    """What a file asks for. `tables` has each fault with the names of the devices that it is for; `random` what comes
    now and then to a device, with the kinds that it can have."""

    def __init__(
        self,
        seed: int,
        tables: Sequence[tuple[FaultTable, tuple[str, ...]]],
        chances: Sequence[tuple[RandomTable, str, tuple[str, ...]]] = (),
    ) -> None:
        self.seed = seed
        self.tables = tables
        self.chances = chances

    def on(self, what: str) -> set[str]:
        """The devices that have a fault of a kind that acts on this."""
        scheduled = {name for table, names in self.tables if KINDS[table.kind] == what for name in names}
        return scheduled | {name for _, name, kinds in self.chances if any(KINDS[kind] == what for kind in kinds)}


def load(path: Path, config: Config) -> Faults:
    """Reads the faults for the devices of a config. Raises ConfigError with every problem, its line and its field."""
    document = Document(path)
    if not document.readable:
        raise ConfigError(document.problems)
    try:
        found = _File.model_validate(document.raw)
    except ValidationError as reason:
        raise ConfigError([_problem(document, error) for error in reason.errors(include_url=False)]) from None
    if not found.faults and not found.random:
        document.wrong(("(file)",), "there is no fault; write a [[fault]] with kind and for")
    tables = [(table, _devices(document, at, table, config)) for at, table in enumerate(found.faults)]
    chances = [each for at, table in enumerate(found.random) for each in _chances(document, at, table, config)]
    if document.problems:
        raise ConfigError(document.problems)
    return Faults(found.seed, tables, chances)


def _problem(document: Document, error: Any) -> Problem:
    path = error["loc"]
    models: dict[str, type[Table]] = {"fault": FaultTable, "random": RandomTable}
    model = models[str(path[0])] if len(path) > 2 else _File
    message, hint = explain(error, model, models)
    if error["type"] == "too_long":
        message, hint = f"more than {MOST} faults", f"write at most {MOST} [[fault]]; every = repeats one"
    hint = hint.replace("docs/config.schema.json", "docs/faults.md")
    return Problem(document.file, dotted(path), message, hint, document.places.line(path))


def _devices(document: Document, at: int, table: FaultTable, config: Config) -> tuple[str, ...]:
    """The devices that a fault is for; what is wrong with them becomes a problem of the document."""
    if table.every is not None and table.every <= table.lasts:
        text = f'it comes again while it still lasts; write every = a duration above "{table.lasts:g}s"'
        document.wrong(("fault", at, "every"), text)
    named = _named(document, ("fault", at), table, config)
    if KINDS[table.kind] != "line":
        protocol = "modbus" if table.kind in MODBUS else "opcua" if table.kind in OPCUA else None
        may = tuple(each.name for each in named if protocol in (None, each.protocol))
        if named and not may:
            text = f"{table.kind} is for {protocol} devices, which {named[0].name} is not; write the name of one"
            document.wrong(("fault", at, "device"), text)
        return may
    fit = [each.name for each in named if _can(table.kind, each)]
    if named and not fit:
        text = f"{named[0].name} has no TCP line, and {table.kind} acts on one; write a device of {', '.join(STREAMS)}"
        document.wrong(("fault", at, "device"), text)
    return tuple(fit)


def _named(document: Document, place: tuple[str, int], table: _What, config: Config) -> list[Device]:
    """The devices of a fault's name or pattern; none is a problem."""
    named = [each for each in config.devices if fnmatch.fnmatchcase(each.name, table.device)]
    if not named:
        nearest = _nearest(table.device, [each.name for each in config.devices])
        document.wrong((*place, "device"), f"no device is called {shown(table.device)}; {nearest}")
    return named


def _can(kind: str, device: Device) -> bool:
    """Whether a device can have a fault."""
    if KINDS[kind] == "line":
        return device.url.partition("://")[0] in STREAMS
    return device.protocol == ("modbus" if kind in MODBUS else "opcua" if kind in OPCUA else device.protocol)


def _chances(
    document: Document, at: int, table: RandomTable, config: Config
) -> Iterator[tuple[RandomTable, str, tuple[str, ...]]]:
    named = _named(document, ("random", at), table, config)
    for device in named:
        if kinds := tuple(kind for kind in table.kinds if _can(kind, device)):
            yield table, device.name, kinds
        else:
            text = f"{device.name} can have none of them; write kinds = one that a {device.protocol} device has"
            document.wrong(("random", at, "kinds"), text)


class Line:
    """A proxy under several faults: the one that began last acts, and after it the one before that still lasts."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._lasting: list[Fault] = []

    async def begin(self, fault: Fault) -> None:
        self._lasting.append(fault)
        await self.proxy.apply(fault)

    async def end(self, fault: Fault) -> None:
        was = self._lasting[-1]
        self._lasting = [each for each in self._lasting if each is not fault]
        now = self._lasting[-1] if self._lasting else None
        if now is not was:
            await self.proxy.apply(now)


class OnLine:
    """A fault of a line."""

    def __init__(self, line: Line, table: FaultTable) -> None:
        self._line = line
        self._fault = Fault(
            Kind(table.kind), Way(table.direction), table.delay, table.jitter, table.rate, table.probability
        )

    async def begin(self) -> None:
        await self._line.begin(self._fault)

    async def end(self) -> None:
        await self._line.end(self._fault)


class Schedule:
    """Begins and ends faults at their times: `run` until it is cancelled. `facts` counts."""

    def __init__(self, faults: Faults, makers: Mapping[str, Maker]) -> None:
        """`makers` by what a kind acts on (`KINDS`)."""
        self._faults, self._makers = faults, makers
        self._counts = {"faults_begun": 0, "faults_ended": 0}

    def facts(self) -> dict[str, int]:
        """`faults_begun` and `faults_ended`, since the start."""
        return dict(self._counts)

    async def run(self) -> None:
        """Keeps the times of all of them, counted from now."""
        start = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for table, names in self._faults.tables:
                make = self._makers[KINDS[table.kind]]
                for name in names:
                    act = make(name, table)
                    group.create_task(self._keep(start, table, name, act), name=f"fault {table.kind} of {name}")
            for number, (chance, name, kinds) in enumerate(self._faults.chances):
                group.create_task(self._now_and_then(start, number, chance, name, kinds), name=f"chance of {name}")

    async def _keep(self, start: float, table: FaultTable, name: str, act: Act) -> None:
        loop, due = asyncio.get_running_loop(), start + table.at
        while True:
            await asyncio.sleep(due - loop.time())
            await self._say("begun", table, name, act.begin)
            await asyncio.sleep(due + table.lasts - loop.time())
            await self._say("ended", table, name, act.end)
            if table.every is None:
                return
            due += table.every

    async def _now_and_then(
        self, start: float, number: int, table: RandomTable, name: str, kinds: Sequence[str]
    ) -> None:
        loop, due = asyncio.get_running_loop(), start + table.at
        chance = random.Random(f"{self._faults.seed} {number} {name}")  # noqa: S311 - to be had again, not a secret
        while True:
            pause, fault = table.next(chance, kinds)
            act = self._makers[KINDS[fault.kind]](name, fault)
            due += pause
            await asyncio.sleep(due - loop.time())
            await self._say("begun", fault, name, act.begin)
            due += fault.lasts
            await asyncio.sleep(due - loop.time())
            await self._say("ended", fault, name, act.end)

    async def _say(self, what: str, table: FaultTable, name: str, change: Callable[[], Awaitable[None]]) -> None:
        self._counts[f"faults_{what}"] += 1
        facts = {"event": f"fault_{what}", "device": name, "kind": table.kind, "direction": table.direction}
        log.info("%s: the fault %s has %s", name, table.kind, what, extra=facts)
        await change()


def seeds(seed: int, name: str) -> int:
    """A proxy's own seed: the same for the same file and device."""
    return random.Random(f"{seed} {name}").getrandbits(32)  # noqa: S311 - a reproducible nuisance, not a secret
