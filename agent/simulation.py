"""What a config says of its simulation: how tags move when `headrace simulate` plays their devices. The agent itself
reads none of it. The words are explained in docs/simulation.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, WithJsonSchema, model_validator

from agent import quantity
from agent.document import Document, dotted
from agent.errors import ConfigError, Problem
from agent.table import DURATION, FilePath, Seconds, Table
from agent.wording import explain

Shape: TypeAlias = Literal[
    "constant", "sine", "ramp", "square", "walk", "noise", "counter", "states", "cycles", "expression", "replay"
]
TAKES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "constant": (frozenset({"value"}), frozenset()),
    "sine": (frozenset({"period"}), frozenset({"low", "high", "phase", "noise"})),
    "ramp": (frozenset({"period"}), frozenset({"low", "high", "phase", "fall"})),
    "square": (frozenset({"period"}), frozenset({"low", "high", "phase", "duty"})),
    "walk": (frozenset({"period"}), frozenset({"low", "high"})),
    "noise": (frozenset(), frozenset({"low", "high"})),
    "counter": (frozenset(), frozenset({"rate", "counts", "running", "low", "high"})),
    "states": (frozenset({"states"}), frozenset({"phase"})),
    "cycles": (frozenset({"on", "off"}), frozenset({"low", "high", "phase"})),
    "expression": (frozenset({"expression"}), frozenset()),
    "replay": (frozenset({"file", "column"}), frozenset({"time", "interval", "speed", "loop", "start"})),
}
"""What each shape must have, and what it may have besides."""
_ALWAYS = {"tags", "shape", "every"}
MOST = 1e300
"""Of any number: far enough from the end of the floats to calculate with."""

_Within = Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "24h"))]
_Long = Annotated[Seconds, AfterValidator(quantity.duration_within("10ms", "8784h"))]


def _phase(value: object) -> float:
    return 0.0 if value in (0, "0s") else quantity.seconds(value)


def _finite(value: bool | float | str | None) -> bool | float | str | None:
    if isinstance(value, int | float) and not abs(value) <= MOST:
        raise ValueError(f"{quantity.shown(value)} is no value that a device has; write a number up to {MOST:g}")
    return value


_Value: TypeAlias = Annotated[bool | int | float | str, AfterValidator(_finite)]
_Number: TypeAlias = Annotated[float, AfterValidator(_finite)]


def _globs(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _moment(value: object) -> int:
    """ns since 1970."""
    if isinstance(value, datetime):
        found = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(found.timestamp()) * 1_000_000_000
    raise ValueError(f"{quantity.shown(value)} is not a time; write start = 2026-01-31T06:00:00Z, without quotes")


class State(Table):
    """One step of a state machine."""

    value: _Value = Field(examples=[1])
    lasts: _Long = Field(alias="for", examples=["8s"])


class Signal(Table):
    """How some tags move. Values are in the unit of the tag, so after scaling."""

    tags: Annotated[tuple[str, ...], BeforeValidator(_globs), Field(strict=False, min_length=1)] = Field(
        description="`device.tag`, or a pattern with * and ?. The first signal that fits a tag counts.",
        examples=["press1.oil_*"],
    )
    shape: Shape = Field(examples=["sine"])
    every: _Within = Field(0.25, description="How often the value may change. A replay has its own steps.")
    value: _Value | None = Field(None, description="constant", examples=[21.5])
    low: _Number | None = Field(None, description="Left out: the tag's own low.", examples=[0.0])
    high: _Number | None = Field(None, description="Left out: the tag's own high.", examples=[100.0])
    period: _Long | None = Field(None, description="sine, ramp, square, walk", examples=["2m"])
    phase: Annotated[float, BeforeValidator(_phase), WithJsonSchema(DURATION)] = Field(
        0.0, description="So much later than a period that began in 1970.", examples=["5s"]
    )
    noise: _Number = Field(0.0, ge=0, description="sine: so much up and down at random", examples=[0.2])
    fall: _Long | None = Field(None, description="ramp: that part of the period is the way down", examples=["1s"])
    duty: float = Field(0.5, gt=0, lt=1, description="square: share of the period that is high", examples=[0.3])
    rate: float | None = Field(None, gt=0, le=1e9, description="counter: so many a second", examples=[0.5])
    counts: str | None = Field(None, description="counter: the periods of this tag", examples=["press1.stroke"])
    running: str | None = Field(
        None, description="counter with a rate: only while this tag is on, which has the shape cycles"
    )
    states: Annotated[tuple[State, ...], Field(strict=False, max_length=1000)] = Field(
        (), description="states: one after the other, for ever", examples=[[{"value": 0, "for": "5s"}]]
    )
    on: _Long | None = Field(None, description="cycles", examples=["90s"])
    off: _Long | None = Field(None, description="cycles", examples=["30s"])
    expression: str | None = Field(
        None, max_length=500, description="Of other tags; docs/simulation.md", examples=["40 + 0.3 * press1.load"]
    )
    file: FilePath | None = Field(None, description="replay: CSV, whitespace or Parquet", examples=["oil.csv"])
    column: str | int | None = Field(
        None, description="replay: its name in the first line, or its number from 0 in a file without names"
    )
    time: str | int | None = Field(None, description="replay: the column of times. Left out: a row each interval")
    interval: _Long | None = Field(None, description="replay: between rows without times", examples=["1s"])
    speed: float = Field(1.0, gt=0, le=1e6, description="replay: times as fast", examples=[60.0])
    loop: bool = Field(True, description="replay: again from the first row after the last")
    start: Annotated[int, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})] = Field(
        0, description="replay: when the first row is shown. Left out: 1970, so somewhere within a loop"
    )

    @model_validator(mode="after")
    def _fits(self) -> Signal:
        must, may = TAKES[self.shape]
        given = self.model_fields_set - _ALWAYS
        if missing := sorted(must - given):
            raise ValueError(f"a {self.shape} without {missing[0]}; write {missing[0]} as well")
        if odd := sorted(given - must - may):
            known = ", ".join(sorted(must | may)) or "nothing else"
            raise ValueError(f"a {self.shape} has no {odd[0]}; write only {known} beside tags, shape and every")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high; write the smaller one as low")
        if self.shape == "counter" and (self.rate is None) == (self.counts is None):
            raise ValueError("a counter has a rate or counts a tag; write rate or counts, one of them")
        if self.running is not None and self.rate is None:
            raise ValueError("running is for a counter with a rate; write rate as well")
        if self.shape == "states" and not self.states:
            raise ValueError('no state; write states = [{ value = 0, for = "5s" }, { value = 1, for = "2s" }]')
        if self.fall is not None and self.period is not None and self.fall >= self.period:
            raise ValueError("fall takes the whole period; write a shorter one")
        if self.shape == "replay" and (self.time is None) == (self.interval is None):
            raise ValueError("a replay has a column of times or an interval; write time or interval, one of them")
        return self


class Part(Table):
    """What some devices are."""

    name: str = Field(min_length=1, description="Of a device, or a pattern with * and ?.", examples=["press*"])
    profile: Literal["s7-1200"] = Field(
        description="Whose limits they have (docs/simulation.md).", examples=["s7-1200"]
    )


class Simulation(Table):
    """How `headrace simulate` plays the devices. `headrace run` reads none of it."""

    seed: int = Field(1, ge=0, le=2**63 - 1, description="Another seed, another plant.", examples=[1])
    signals: tuple[Signal, ...] = Field((), alias="signal", strict=False, max_length=10_000)
    devices: tuple[Part, ...] = Field((), alias="device", strict=False, max_length=1000)


def load(path: Path) -> Simulation:
    """The `[simulation]` table of a file of its own. Raises ConfigError with every problem."""
    document = Document(path)
    if document.readable and not isinstance(document.raw.get("simulation"), dict):
        document.wrong(("simulation",), "there is no table; write [simulation], and [[simulation.signal]] below it")
    for key in set(document.raw) - {"simulation"}:
        document.wrong((key,), f"unknown key {quantity.shown(key)}; write only [simulation] in this file")
    if not document.problems:
        try:
            table = document.raw["simulation"]
            return Simulation.model_validate(table, context={"base": path.absolute().parent})
        except ValidationError as reason:
            for error in reason.errors(include_url=False):
                way = ("simulation", *error["loc"])
                tables: dict[str, type[Table]] = {
                    "simulation": Simulation,
                    "simulation.signal": Signal,
                    "simulation.device": Part,
                }
                model = tables[f"simulation.{way[1]}"] if len(way) > 3 else Simulation
                message, hint = explain(error, model, tables)
                line = document.places.line(way)
                document.problems.append(Problem(str(path), dotted(way), message, hint, line))
    raise ConfigError(document.problems)
