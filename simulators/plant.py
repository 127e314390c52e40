"""The virtual plant: what every tag's value is at every time, as a pure function of a seed.

Nothing is remembered but the last answer, so a server, a second server and the check of a stored reading agree without
talking to each other, on any machine.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import partial
from hashlib import blake2b
from math import ceil, floor, gcd
from pathlib import Path

from agent.address import NodeAddress
from agent.config import Config, OpcUaDevice
from agent.document import line_of
from agent.encoding import Form
from agent.errors import ConfigError, Problem
from agent.model import Tag, Value, ValueType
from agent.simulation import Simulation, load
from simulators import signals
from simulators.played import Ground, play
from simulators.signals import Shape, mix

MILLISECOND = 1_000_000
"""In nanoseconds."""
ELEMENTS = 4
"""Of every array."""

INTEGER_RANGES = {
    ValueType.INT8: (-(2**7), 2**7 - 1),
    ValueType.INT16: (-(2**15), 2**15 - 1),
    ValueType.INT32: (-(2**31), 2**31 - 1),
    ValueType.INT64: (-(2**63), 2**63 - 1),
    ValueType.UINT8: (0, 2**8 - 1),
    ValueType.UINT16: (0, 2**16 - 1),
    ValueType.UINT32: (0, 2**32 - 1),
    ValueType.UINT64: (0, 2**64 - 1),
}

_UNIT_RANGES: dict[str, tuple[float, float]] = {
    "°C": (15, 420),
    "K": (280, 700),
    "bar": (0, 250),
    "mbar": (-20, 20),
    "kN": (0, 2500),
    "mm": (0, 600),
    "mm/s": (0, 500),
    "%": (0, 100),
    "A": (0, 400),
    "V": (360, 420),
    "kW": (0, 250),
    "Hz": (0, 60),
    "rpm": (0, 3000),
    "1/min": (0, 60),
    "kWh": (0, 1_000_000),
    "m³": (0, 1_000_000),
}

_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+")
"""A word of a tag's name, in `oil_temp_2` as in `OilTemp2`."""

_COUNTS = ("count", "total", "strokes", "parts", "pieces", "energy", "hours", "cycles", "volume", "sequence")
_STATES = ("state", "mode", "phase", "step", "number")
_WORDS = ("word", "flags", "bits", "mask")
_TARGETS = ("setpoint", "target", "recipe")
_RAMPS = ("position", "stroke", "angle", "level", "progress")
_RARE = ("alarm", "fault", "error", "warning", "estop", "open", "overload")
_USUAL = ("running", "active", "enabled", "ready", "ok", "auto")

_NAMES = (
    "Träger links", "Träger rechts", "Gehäuse Ø40", "Deckel", "Flansch 12°", "Стойка B", "冲压件 7", "Crossbeam 2",
    "Bracket-A", "Sill outer", "Door inner", "µ-Blech",
)  # fmt: skip


_HALF, _SINGLE = struct.Struct("<e"), struct.Struct("<f")


class _Signal:
    """One tag's raw value by step, with the last answer kept."""

    __slots__ = ("at", "last", "last_k", "offset", "scale", "scaled", "step_ns")

    def __init__(self, tag: Tag, step_ns: int, at: Callable[[int], Value]) -> None:
        self.at = at
        self.step_ns = step_ns
        self.scaled = tag.scaled and tag.type is not ValueType.STRING
        self.scale = 1.0 if tag.scale is None else tag.scale
        self.offset = 0.0 if tag.offset is None else tag.offset
        self.last_k: int | None = None
        self.last: Value = None


class Plant:
    """Every tag's value at every time. Only the device's and the tag's name tell two tags' signals apart."""

    def __init__(
        self, tags: Iterable[Tag], seed: int, simulation: Simulation | None = None, file: Path = Path()
    ) -> None:
        """`simulation` gives some tags signals of their own; `file` is where it stands. Raises ConfigError for it."""
        self.seed = seed
        self.told = simulation
        """What a config, or a file of its own, says of it."""
        tags = tuple(tags)
        self._owners: dict[tuple[str, str], str] = {}
        played = {}
        if simulation is not None and simulation.signals:
            played = play(simulation, tags, Ground(partial(_key, seed), _usual, _type_range, self.value), file)
        self._signals = {
            (tag.device, tag.name): _Signal(tag, own.step_ns, own.raw)
            if (own := played.get((tag.device, tag.name)))
            else _signal(tag, seed)
            for tag in tags
        }

    @classmethod
    def of(cls, config: Config, seed: int | None = None, file: Path | None = None) -> Plant:
        """The plant of a whole config, whose `[simulation]` gives the seed where none is given. `file` has another
        `[simulation]`. Raises ConfigError."""
        told = config.simulation if file is None else load(file)
        _known(told, [device.name for device in config.devices], file or config.path)
        found = cls(config.tags, told.seed if seed is None else seed, told, file or config.path)
        found._share(config.tags)
        found._join(device for device in config.devices if isinstance(device, OpcUaDevice))
        return found

    def _share(self, tags: Iterable[Tag]) -> None:
        """What two tags of a device read at one place is one value."""
        first: dict[tuple[object, ...], _Signal] = {}
        for tag in tags:
            place = tag.device, tag.address, tag.type, tag.order, tag.form, tag.length
            mine = self._signals[tag.device, tag.name]
            if (other := first.setdefault(place, mine)) is not mine:
                self._signals[tag.device, tag.name] = _Signal(tag, other.step_ns, other.at)

    def _join(self, devices: Iterable[OpcUaDevice]) -> None:
        """The fields of one structure may change whenever one of them does: their node has one source time."""
        nodes: dict[tuple[str, NodeAddress], list[Tag]] = {}
        for device in devices:
            for tag in device.tags:
                if "#" in tag.address and (address := NodeAddress.parse(tag.address)).field:
                    nodes.setdefault((device.url, replace(address, field="")), []).append(tag)
        for tags in nodes.values():
            self._owners |= {(tag.device, tag.name): tags[0].device for tag in tags}
            step_ns = gcd(*map(self.step_ns, tags))
            for tag in tags:
                own = self._signals[tag.device, tag.name]
                at = partial(_every, own.at, own.step_ns, step_ns)
                self._signals[tag.device, tag.name] = _Signal(tag, step_ns, at)

    def owner(self, tag: Tag) -> str:
        """The device whose faults it has: another than its own where a structure has fields of two."""
        return self._owners.get((tag.device, tag.name), tag.device)

    def value(self, tag: Tag, time_ns: int) -> Value:
        """What a right reading of `tag` says at `time_ns` (UTC): for a scaled tag `float(raw) * scale + offset`."""
        signal = self._signals[tag.device, tag.name]
        raw = self.raw(tag, time_ns)
        if signal.scaled:
            return float(raw) * signal.scale + signal.offset  # type: ignore[arg-type]
        return raw

    def raw(self, tag: Tag, time_ns: int) -> Value:
        """What the device itself holds at `time_ns`: a value of `tag.type`."""
        signal = self._signals[tag.device, tag.name]
        k = time_ns // signal.step_ns
        if k != signal.last_k:
            signal.last = signal.at(k)
            signal.last_k = k
        return signal.last

    def step_ns(self, tag: Tag) -> int:
        """The value is constant from `k * step_ns` to just before `(k + 1) * step_ns`, for every integer k."""
        return self._signals[tag.device, tag.name].step_ns


def _known(told: Simulation, devices: list[str], file: Path) -> None:
    """Raises ConfigError for a [[simulation.device]] that is none of the config's."""
    problems = []
    for at, part in enumerate(told.devices):
        if not any(fnmatchcase(name, part.name) for name in devices):
            near = get_close_matches(part.name, devices, n=1) or devices[:12]
            message = f"no device fits {part.name!r}"
            field = f"simulation.device[{at}].name"
            problems.append(Problem(str(file), field, message, f"write {' or '.join(near)}", line_of(file, field)))
    if problems:
        raise ConfigError(problems)


def _every(at: Callable[[int], Value], own_ns: int, step_ns: int, k: int) -> Value:
    """A signal of longer steps, by shorter ones."""
    return at(k * step_ns // own_ns)


def _key(seed: int, tag: Tag) -> int:
    digest = blake2b(f"{seed}/{tag.device}/{tag.name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _type_range(tag: Tag) -> tuple[int, int]:
    bottom, top = INTEGER_RANGES[tag.type.element]
    return (bottom, 10 ** (4 * Form(tag.form).registers) - 1) if tag.form else (bottom, top)


def _usual(tag: Tag) -> tuple[float, float]:
    """The range of a tag as it reads, by its own limits, its type and its unit."""
    if tag.type is ValueType.BOOL:
        return 0.0, 1.0
    if tag.low is not None and tag.high is not None:
        return tag.low, tag.high
    if tag.type in INTEGER_RANGES and tag.unit not in _UNIT_RANGES:
        return (0.0, float(INTEGER_RANGES[tag.type][1])) if not tag.scaled else (0.0, 100.0)
    usual = _UNIT_RANGES.get(tag.unit, (0.0, 100.0))
    return (usual[0] if tag.low is None else tag.low), (usual[1] if tag.high is None else tag.high)


def integer_range(tag: Tag) -> tuple[int, int]:
    """The raw integers that keep `tag` within its type and its low and high, both ends included."""
    bottom, top = INTEGER_RANGES[tag.type]
    if tag.form:
        top = 10 ** (4 * Form(tag.form).registers) - 1  # packed decimal
    low, high = _limits(tag)
    least = bottom if low is None else max(bottom, ceil(low))
    most = top if high is None else min(top, floor(high))
    return (least, most) if least <= most else (bottom, top)


def _signal(tag: Tag, seed: int) -> _Signal:
    key = _key(seed, tag)
    words = frozenset(word.lower() for word in _WORD.findall(tag.name))
    if tag.form and Form(tag.form).moment:
        # The device's own clock, which is right; the coarsest form shows whole seconds.
        return _Signal(tag, 1000 * MILLISECOND, lambda k: k * 1000 * MILLISECOND)
    if tag.type.is_array:
        parts = [_signal(replace(tag, name=f"{tag.name}[{n}]", type=tag.type.element), seed) for n in range(ELEMENTS)]
        return _Signal(tag, parts[0].step_ns, lambda k: tuple(part.at(k) for part in parts))  # type: ignore[misc]
    if tag.type in (ValueType.STRING, ValueType.BYTES):
        text = _text(tag, key)
        told = text if tag.type is ValueType.STRING else lambda k: str(text(k)).encode()
        return _Signal(tag, 2000 * MILLISECOND, told)
    if tag.type is ValueType.BOOL:
        return _Signal(tag, 500 * MILLISECOND, _bit(key, words))
    if tag.type in (ValueType.FLOAT32, ValueType.FLOAT64):
        return _Signal(tag, 250 * MILLISECOND, _real(tag, key, words))
    return _integer(tag, key, words)


def _limits(tag: Tag) -> tuple[Fraction | None, Fraction | None]:
    """`low` and `high` as raw values, exactly."""
    scale = Fraction(1 if tag.scale is None else tag.scale)
    offset = Fraction(tag.offset or 0)
    low = None if tag.low is None or not scale else (Fraction(tag.low) - offset) / scale
    high = None if tag.high is None or not scale else (Fraction(tag.high) - offset) / scale
    return (high, low) if scale < 0 else (low, high)


def _shape(key: int, words: frozenset[str]) -> Shape:
    """How an analogue value moves, by its name; by its key where the name says nothing. Steps are 250 ms."""
    period = 60 + key % 400
    if not words.isdisjoint(_TARGETS):
        return signals.hold(key, 40 + key % 80, 9)
    if not words.isdisjoint(_RAMPS):
        return signals.ramp(key, 20 + key % 60)
    shapes: tuple[Shape, ...] = (
        signals.walk(key, period * 4),
        signals.sine(key, period),
        signals.walk(key, period),
        signals.sine(key, period * 3, noise=0.002),
    )
    return shapes[mix(key, 1) % len(shapes)]


def _text(tag: Tag, key: int) -> Callable[[int], Value]:
    """A batch and what is made in it, renewed every 8 to 22 s, cut to the bytes that the device has for it."""
    period = 4 + key % 8

    def at(k: int) -> str:
        n = k // period
        bits = mix(key, n)
        text = f"{_NAMES[bits % len(_NAMES)]} B{bits >> 40 & 0xFFFF:05d}" if bits >> 20 & 3 else f"B{n % 10**6:06d}"
        if not tag.length:
            return text
        return text.encode()[: tag.length].decode(errors="ignore") or str(n % 10)

    return at


def _bit(key: int, words: frozenset[str]) -> Callable[[int], Value]:
    if not words.isdisjoint(_RARE):
        shape = signals.square(key, 40 + key % 60, 0.06)
    elif not words.isdisjoint(_USUAL):
        shape = signals.square(key, 30 + key % 30, 0.62)
    else:
        shape = signals.square(key, 4 + key % 16, 0.5)
    return lambda k: shape(k) > 0.5


def _real(tag: Tag, key: int, words: frozenset[str]) -> Callable[[int], Value]:
    """A short decimal, as a PLC shows it. It keeps 1 % off the limits, so that float32 rounding can't pass them."""
    low, high = _real_range(tag)
    rounding = _HALF if tag.form == Form.FLOAT16 else _SINGLE if tag.type is ValueType.FLOAT32 else None
    if rounding is not None:
        most_of = Fraction(60000) if rounding is _HALF else Fraction(3e38)
        low, high = max(low, -most_of), min(high, most_of)
    span = high - low
    places = next((places for places in range(6) if span * 10**places >= 5000), 6)
    unit = 10**places
    least, most = ceil((low + span / 100) * unit), floor((high - span / 100) * unit)
    width = max(0, most - least)
    if not words.isdisjoint(_COUNTS):
        count = signals.counter(key, 1 + key % 3, 2)
        base = mix(key, 2)
        return lambda k: _float((least + (base + count(k)) % (width + 1)) / unit, rounding)
    shape = _shape(key, words)
    return lambda k: _float((least + int(shape(k) * width)) / unit, rounding)


def _real_range(tag: Tag) -> tuple[Fraction, Fraction]:
    low, high = _limits(tag)
    usual = _UNIT_RANGES.get(tag.unit, (0, 100))
    span = Fraction(usual[1] - usual[0])
    if low is None and high is None:
        return Fraction(usual[0]), Fraction(usual[1])
    if low is None:
        low = high - span if high is not None else Fraction(0)
    if high is None:
        high = low + span
    return (low, high) if low <= high else (high, low)


def _float(value: float, rounding: struct.Struct | None) -> float:
    rounded: float = value if rounding is None else rounding.unpack(rounding.pack(value))[0]
    return rounded


def _integer(tag: Tag, key: int, words: frozenset[str]) -> _Signal:
    low, high = integer_range(tag)
    limited = tag.low is not None or tag.high is not None
    width = high - low
    if not words.isdisjoint(_COUNTS) or (width >= 2**53 and not limited):
        count = signals.counter(key, 1 + key % 5, 2 + key % 7)
        base = mix(key, 2)
        return _Signal(tag, 500 * MILLISECOND, lambda k: low + (base + count(k)) % (width + 1))
    if not words.isdisjoint(_STATES):
        shape = signals.hold(key, 4 + key % 20, 6)
        top = width if limited else min(width, 9)
        return _Signal(
            tag, 1000 * MILLISECOND, lambda k: low + _share(shape(k), top) if limited else int(shape(k) * top)
        )
    if not words.isdisjoint(_WORDS):
        bottom = min(max(low, 0), high)
        return _Signal(tag, 500 * MILLISECOND, _word(key, bottom, high - bottom))
    shape = _shape(key, words)
    if width >= 2**31 and not limited:
        low, width = max(low, -(10**5)), 2 * 10**5  # an encoder's or a drive's value, which seldom fills its 32 bits
    return _Signal(tag, 250 * MILLISECOND, lambda k: low + _share(shape(k), width))


def _share(level: float, width: int) -> int:
    """`level` of a width that may have 64 bits: multiplied as integers, a float would lose the last eleven."""
    return int(level * (1 << 53)) * width >> 53


def _word(key: int, low: int, width: int) -> Callable[[int], Value]:
    """Status bits: of each nibble some flip together, and every nibble has its own pace."""
    nibbles = tuple((shift, mix(key, shift), 4 + mix(key, shift) % 60) for shift in (0, 4, 8, 12))

    def at(k: int) -> int:
        word = 0
        for shift, own, period in nibbles:
            word |= (mix(own, k // period) & 15) << shift
        return low + word % (width + 1)

    return at
