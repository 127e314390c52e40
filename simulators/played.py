"""The tags of a plant that a `[simulation]` table gives a signal of its own, as what the device holds at each time."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from math import floor, isfinite
from pathlib import Path

from agent.document import line_of
from agent.encoding import Form
from agent.errors import ConfigError, Problem
from agent.model import Tag, Value, ValueType
from agent.simulation import Signal, Simulation
from simulators import expression
from simulators.expression import At, Told, number
from simulators.replay import Recording, Unreadable
from simulators.shapes import ns, shape

_FLOATS = {ValueType.FLOAT32: struct.Struct("<f"), ValueType.FLOAT64: struct.Struct("<d")}
_HALF = struct.Struct("<e")
CALLS = 6
"""How deep Python goes from one tag's value to that of a tag in its expression, beside the expression itself."""


@dataclass(frozen=True, slots=True)
class Played:
    """One tag: `raw(k)` is what the device holds from `k * step_ns` on."""

    step_ns: int
    raw: Callable[[int], Value]


@dataclass(frozen=True, slots=True)
class Ground:
    """What the plant knows of every tag."""

    key: Callable[[Tag], int]
    """What makes its random signals its own."""
    usual: Callable[[Tag], tuple[float, float]]
    """Its range, where its signal has none."""
    bounds: Callable[[Tag], tuple[int, int]]
    """The integers that its type holds."""
    value: Callable[[Tag, int], Value]
    """What it reads as at a time."""


def play(simulation: Simulation, tags: Iterable[Tag], ground: Ground, file: Path) -> dict[tuple[str, str], Played]:
    """The tags that have a signal, by device and name. Raises ConfigError with every problem, which `file` and a
    signal's place name."""
    return _Playing(simulation, list(tags), ground, file).run()


class _Playing:
    def __init__(self, simulation: Simulation, tags: list[Tag], ground: Ground, file: Path) -> None:
        self.simulation = simulation
        self.tags = {f"{tag.device}.{tag.name}": tag for tag in tags}
        self.ground = ground
        self.file = file
        self.problems: list[Problem] = []
        self.chosen = {name: at for name in self.tags if (at := self._first(name)) is not None}
        self.looks: dict[str, dict[str, int]] = {}
        """What the expression of a tag looks at, and how often."""
        self.depths: dict[str, int] = {}
        """How deep it is nested."""

    def run(self) -> dict[tuple[str, str], Played]:
        for at, signal in enumerate(self.simulation.signals):
            for glob in signal.tags:
                if not any(fnmatchcase(name, glob) for name in self.tags):
                    near = get_close_matches(glob, self.tags, n=1)
                    text = near[0] if near else "device.tag, or a pattern such as press1.oil_*"
                    self._wrong(at, "tags", f"no tag fits {glob!r}; write {text}")
        found = {}
        for name, at in self.chosen.items():
            try:
                tag = self.tags[name]
                found[tag.device, tag.name] = self._played(tag, self.simulation.signals[at])
            except Unreadable as wrong:
                self._wrong(at, "file", str(wrong))
            except expression.NotAnExpression as wrong:
                self._wrong(at, "expression", str(wrong))
            except ValueError as wrong:
                self._wrong(at, "shape", str(wrong))
        self._circles()
        if self.problems:
            raise ConfigError(list(dict.fromkeys(self.problems)))
        return found

    def _first(self, name: str) -> int | None:
        signals = enumerate(self.simulation.signals)
        return next((at for at, each in signals if any(fnmatchcase(name, glob) for glob in each.tags)), None)

    def _wrong(self, at: int, field: str, text: str) -> None:
        message, _, hint = text.rpartition("; write ")
        place = f"simulation.signal[{at}].{field}"
        self.problems.append(
            Problem(str(self.file), place, message or hint, f"write {hint}", line_of(self.file, place))
        )

    def _named(self, beside: Tag, name: str) -> Tag | None:
        """A tag of the same device by its own name, or any by `device.tag`."""
        return self.tags.get(f"{beside.device}.{name}") or self.tags.get(name)

    def _signal(self, beside: Tag, name: str) -> Signal:
        tag = self._named(beside, name)
        at = None if tag is None else self.chosen.get(f"{tag.device}.{tag.name}")
        if at is None:
            raise ValueError(f"{name} has no signal here; write one for it")
        return self.simulation.signals[at]

    def _played(self, tag: Tag, signal: Signal) -> Played:
        if tag.form and Form(tag.form).moment:
            raise ValueError(f"{tag.device}.{tag.name} is the device's clock; write tags that leave it out")
        if signal.shape == "replay":
            recording = Recording(signal, numbers=tag.type.element.is_number)
            return self._stepped(tag, recording.step_ns, recording.at)
        if signal.shape == "expression":
            found = expression.parse(signal.expression or "", partial(self._find, tag), self.tags)
            name = f"{tag.device}.{tag.name}"
            self.looks[name], self.depths[name] = found.tags, found.depth
            return self._stepped(tag, ns(signal.every), found.at)
        low, high = (0.0, 1.0) if signal.shape == "cycles" else self.ground.usual(tag)
        low = low if signal.low is None else signal.low
        high = high if signal.high is None else signal.high
        at = shape(signal, self.ground.key(tag), low, max(low, high), partial(self._signal, tag))
        return self._stepped(tag, ns(signal.every), at)

    def _find(self, beside: Tag, name: str) -> At | None:
        tag = self._named(beside, name)
        if tag is None:
            return None
        value = self.ground.value

        def at(time_ns: int) -> Told:
            found = value(tag, time_ns)
            return found if isinstance(found, bool | int | float | str) else 0

        return at

    def _stepped(self, tag: Tag, step_ns: int, at: At) -> Played:
        told = _teller(tag, self.ground.bounds)
        return Played(step_ns, lambda k: told(at(k * step_ns)))

    def _circles(self) -> None:
        """No tag may follow from itself, and no value may cost too much, or lie too deep."""
        costs: dict[str, tuple[int, int]] = {}

        def cost(name: str, above: tuple[str, ...]) -> tuple[int, int]:
            """How many values one value looks at, and how many calls deep."""
            if name in above:
                chain = " -> ".join([*above[above.index(name) :], name])
                self._wrong(self.chosen[name], "expression", f"it follows from itself, {chain}; write a way out")
                return 1, 0
            if name in costs or len(above) > expression.DEEPEST_OF_ALL // CALLS:
                return costs.get(name, (1, expression.DEEPEST_OF_ALL))
            looks = self.looks.get(name, {})
            below = [(times, cost(self._full(name, other), (*above, name))) for other, times in looks.items()]
            values = 1 + sum(times * each for times, (each, _) in below)
            calls = CALLS + 2 * self.depths.get(name, 0) + max((each for _, (_, each) in below), default=0)
            if values > expression.COSTLIEST:
                text = f"{name} looks at {values} values; write fewer means, or fewer tags between"
                self._wrong(self.chosen[name], "expression", text)
                values = 1
            if calls > expression.DEEPEST_OF_ALL:
                text = f"{name} follows from tags that follow from tags, too deep; write shorter chains"
                self._wrong(self.chosen[name], "expression", text)
                calls = 0
            costs[name] = values, calls
            return costs[name]

        for name in self.looks:
            cost(name, ())

    def _full(self, name: str, other: str) -> str:
        tag = self._named(self.tags[name], other)
        return other if tag is None else f"{tag.device}.{tag.name}"


def _teller(tag: Tag, bounds: Callable[[Tag], tuple[int, int]]) -> Callable[[Told], Value]:
    """From a value in the tag's unit to what the device holds: unscaled, rounded, and kept within its type."""
    kind = tag.type.element
    one = _scalar(tag, kind, bounds)
    if not tag.type.is_array:
        return one
    return lambda value: (one(value),) * 4  # type: ignore[return-value]


def _scalar(tag: Tag, kind: ValueType, bounds: Callable[[Tag], tuple[int, int]]) -> Callable[[Told], Value]:
    if kind is ValueType.BOOL:
        return lambda value: value not in ("", "0", "false") if isinstance(value, str) else value >= 0.5
    if kind is ValueType.STRING:
        return lambda value: _cut(_text(value), tag.length)
    if kind is ValueType.BYTES:
        return lambda value: _text(value).encode()
    scale = 1 if tag.scale is None else tag.scale
    offset = 0 if tag.offset is None else tag.offset
    scaled = tag.scaled

    def unscaled(value: Told) -> int | float:
        found = number(value)
        return (found - offset) / scale if scaled and scale else found

    if kind in _FLOATS:
        form = _HALF if tag.form == Form.FLOAT16 else _FLOATS[kind]
        return lambda value: _rounded(form, float(unscaled(value)))
    least, most = bounds(tag)

    def whole(value: Told) -> int:
        found = unscaled(value)
        if not isfinite(found):  # by a scale that is next to nothing
            return min(max(0, least), most)
        return min(max(found if isinstance(found, int) else floor(found + 0.5), least), most)

    return whole


def _text(value: Told) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _cut(text: str, length: int) -> str:
    return text.encode()[:length].decode(errors="ignore") if length else text


def _rounded(form: struct.Struct, value: float) -> float:
    if not isfinite(value):
        return 0.0
    try:
        found: float = form.unpack(form.pack(value))[0]
    except OverflowError:
        return 0.0
    return found
