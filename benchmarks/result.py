"""One figure, and how it is measured and printed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter

import orjson

COMMAND = "python -m benchmarks"


@dataclass(frozen=True, slots=True)
class Result:
    """`ratio` says how many times better `name` is than `baseline` in the same run, so above 1 is good.

    Where less is better (bytes, ns) it is the baseline's value over `value`; where more is better (readings/s) it is
    `value` over the baseline's.
    """

    name: str
    value: float
    unit: str
    baseline: str
    ratio: float
    command: str = COMMAND

    def print(self) -> None:
        """One line of JSON on stdout."""
        sys.stdout.write(orjson.dumps(asdict(self)).decode() + "\n")
        sys.stdout.flush()


def less(name: str, value: float, unit: str, **baselines: float) -> list[Result]:
    """A cost, against each baseline's."""
    return [Result(name, _short(value), unit, other, _short(cost / value)) for other, cost in baselines.items()]


def more(name: str, value: float, unit: str, **baselines: float) -> list[Result]:
    """A rate, against each baseline's."""
    return [Result(name, _short(value), unit, other, _short(value / rate)) for other, rate in baselines.items()]


def seconds(work: Callable[[], object], least: float = 0.3) -> float:
    """Seconds of one call: the best of several rounds that together take `least` seconds or more."""
    work()
    best, spent = float("inf"), 0.0
    while spent < least:
        start = perf_counter()
        work()
        took = perf_counter() - start
        best, spent = min(best, took), spent + took
    return best


def _short(value: float) -> float:
    """Four digits: more would be noise."""
    return float(f"{value:.4g}")
