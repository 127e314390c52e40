"""Quality scores of one tag's readings per window; pure, and from a snapshot.

Two published families, which do not mean the same by the same words:

- Apache IoTDB's data quality (`completeness`, `consistency`, `timeliness`, `validity`), from the readings alone:
  what the spacing of the times tells, and outliers by the median absolute deviation. It takes more than ten readings.
  Its consistency is about redundant times, and its timeliness about readings that came too late into the series.
- GB/T 36344-2018's dimensions (`gbt36344`), as far as they can be observed here: against the interval, the configured
  range, the status of each reading and its way to the data center. Accuracy against the truth can't be observed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

LEAST = 10
"""A window has to have more readings than this for the family of IoTDB."""
_AHEAD = 10
_DEVIATIONS = 3 * 1.4826
"""Beyond so many median absolute deviations a value is an outlier: three sigmas of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Point:
    """One reading: `value` is None where it has none or is no number; `arrived_ns` when its block was received."""

    time_ns: int
    value: float | None
    quality: int
    arrived_ns: int | None = None

    @property
    def special(self) -> bool:
        """Whether there is nothing to calculate with: no value, not finite, or Bad."""
        return self.value is None or not math.isfinite(self.value) or bool(self.quality & 0x8000_0000)


@dataclass(frozen=True, slots=True)
class Spacing:
    """What the times tell: places where readings are missing, came late, or are redundant."""

    missing: int = 0
    late: int = 0
    redundant: int = 0


def spacing(times: Sequence[int], interval_ns: float) -> Spacing:
    """A step of half an interval or less is redundant; one of two or more lacks readings, some of which may follow too
    close together within the next ten: those came late."""
    missing = late = redundant = 0
    gone = bytearray(len(times))
    at, following = 0, 1
    while following < len(times):
        if gone[following]:
            following += 1
            continue
        ratio = (times[following] - times[at]) / interval_ns
        if ratio <= 0.5:
            redundant += 1
            following += 1
            continue
        if ratio >= 2.0:
            wanted = math.floor(ratio - 1 + 0.5)
            found = _late(times, gone, following, interval_ns, wanted)
            late += found
            missing += wanted - found
        at, following = following, following + 1
    return Spacing(missing, late, redundant)


def _late(times: Sequence[int], gone: bytearray, begin: int, interval_ns: float, wanted: int) -> int:
    found, before, seen = 0, begin, 2
    for at in range(begin + 1, len(times)):
        if gone[at]:
            continue
        seen += 1
        ratio = (times[at] - times[before]) / interval_ns
        if seen > _AHEAD or ratio >= 2.0:
            break
        if ratio <= 0.5:
            gone[at] = 1
            found += 1
            if found == wanted:
                break
        else:
            before = at
    return found


def outliers(values: Sequence[float]) -> int:
    """How many lie further from the median than three sigmas, as the median absolute deviation estimates them."""
    if not values:
        return 0
    middle = median(values)
    bound = _DEVIATIONS * median([abs(value - middle) for value in values])
    return sum(abs(value - middle) > bound for value in values)


def validity(points: Sequence[Point]) -> float | None:
    """1 less a quarter of the share of outliers (values, changes, speeds, accelerations); None without numbers."""
    times = [point.time_ns / 1e9 for point in points]
    values = _filled(times, [None if point.special else point.value for point in points])
    if values is None:
        return None
    steps = [(later - sooner) or 1e-9 for sooner, later in pairwise(times)]
    changes = [later - sooner for sooner, later in pairwise(values)]
    speeds = [change / step for change, step in zip(changes, steps, strict=True)]
    accelerations = [(later - sooner) / step for (sooner, later), step in zip(pairwise(speeds), steps, strict=False)]
    count = outliers(values) + outliers(changes) + outliers(speeds) + outliers(accelerations)
    return 1 - 0.25 * count / len(points)


def _filled(times: Sequence[float], values: Sequence[float | None]) -> list[float] | None:
    """The values with a straight line where one is missing, which goes on at the ends."""
    known = [(at, value) for at, value in zip(times, values, strict=True) if value is not None]
    if len(known) < 2:
        return None
    filled, right = [], 1
    for at, value in zip(times, values, strict=True):
        if value is not None:
            filled.append(value)
            continue
        while right < len(known) - 1 and known[right][0] < at:
            right += 1
        (t0, v0), (t1, v1) = known[right - 1], known[right]
        filled.append(v0 if t1 == t0 else v0 + (v1 - v0) * (at - t0) / (t1 - t0))
    return filled


@dataclass(frozen=True, slots=True)
class Rules:
    """What readings are held against. `interval_ns` None takes the median step; `deadline_ns` is for the way here."""

    interval_ns: int | None = None
    deadline_ns: int = 60 * 10**9
    low: float | None = None
    high: float | None = None


def scores(points: Sequence[Point], length_ns: int, rules: Rules) -> dict[str, Any]:
    """Both families for one window of `length_ns`, whose readings are in the order of time."""
    count = len(points)
    times = [point.time_ns for point in points]
    steps = [later - sooner for sooner, later in pairwise(times)]
    interval = rules.interval_ns or (median(steps) if steps else 0)
    special = sum(point.special for point in points)
    found: dict[str, Any] = {"readings": count, "interval_ns": round(interval) or None, "special": special}
    if count > LEAST and interval > 0:
        spaced = spacing(times, interval)
        found |= {
            "missing": spaced.missing,
            "late": spaced.late,
            "redundant": spaced.redundant,
            "completeness": 1 - (spaced.missing + special) / (count + spaced.missing),
            "consistency": 1 - spaced.redundant / count,
            "timeliness": 1 - spaced.late / count,
            "validity": validity(points),
        }
    else:
        names = ("missing", "late", "redundant", "completeness", "consistency", "timeliness", "validity")
        found |= dict.fromkeys(names)
    found["gbt36344"] = _dimensions(points, length_ns, interval, rules)
    return found


def _dimensions(points: Sequence[Point], length_ns: int, interval: float, rules: Rules) -> dict[str, Any]:
    count = len(points)
    expected = math.ceil(length_ns / interval) if interval > 0 else None
    sound = [point.value for point in points if not point.special and point.value is not None]
    delays = sorted(point.arrived_ns - point.time_ns for point in points if point.arrived_ns is not None)
    low, high = rules.low, rules.high
    within = None
    if sound and not (low is None and high is None):
        within = sum((low is None or value >= low) and (high is None or value <= high) for value in sound) / len(sound)
    return {
        "record_completeness": min(1.0, count / expected) if expected else None,
        "element_completeness": len(sound) / count if count else None,
        "uniqueness": len({point.time_ns for point in points}) / count if count else None,
        "plausibility": within,
        "timeliness": sum(delay <= rules.deadline_ns for delay in delays) / len(delays) if delays else None,
        "delay_ms": {name: _at(delays, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))},
    }


def _at(delays: Sequence[int], share: float) -> float | None:
    return delays[min(len(delays) - 1, int(len(delays) * share))] / 1e6 if delays else None
