"""How the signals of a `[simulation]` table move: pure functions of time, in the unit of the tag."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import TypeAlias

from agent.simulation import Signal
from simulators import signals
from simulators.expression import Told
from simulators.signals import draw

SECOND = 1_000_000_000
At: TypeAlias = Callable[[int], Told]
"""From a time (ns UTC) to a value."""
Named: TypeAlias = Callable[[str], Signal]
"""The signal of a tag that another signal names. Raises ValueError."""


def shape(signal: Signal, key: int, low: float, high: float, named: Named) -> At:  # noqa: PLR0911
    """Of every shape but expression and replay. `key` makes what is random; `low` and `high` are the signal's own, or
    the tag's where it has none. Raises ValueError."""
    span = high - low
    match signal.shape:
        case "constant":
            value = signal.value if signal.value is not None else 0
            return lambda _: value
        case "walk":
            level = signals.walk(key, max(12, round((signal.period or 60) / signal.every)))
            every = ns(signal.every)
            return lambda at: low + level(at // every) * span
        case "noise":
            every = ns(signal.every)
            return lambda at: low + draw(key, at // every) * span
        case "states":
            return _states(signal)
        case "counter":
            return _counter(signal, int(low), int(high), named)
        case "cycles":
            on, _, place = _cycle(signal)
            return lambda at: high if place(at) < on else low
        case _:
            return _wave(signal, key, low, span)


def ns(seconds: float | None) -> int:
    return round((seconds or 0) * SECOND)


def _wave(signal: Signal, key: int, low: float, span: float) -> At:
    period, phase, every = ns(signal.period), ns(signal.phase), ns(signal.every)
    if signal.shape == "sine":
        noise = signal.noise

        def sine(at: int) -> float:
            turn = (at - phase) % period * 2 / period
            half = turn if turn < 1 else turn - 1
            arc = 4 * half * (1 - half)
            level = 0.5 + 0.5 * (4 * arc / (5 - arc)) * (1 if turn < 1 else -1)
            return low + level * span + (noise * (2 * draw(key, at // every) - 1) if noise else 0.0)

        return sine
    if signal.shape == "square":
        edge = round(period * signal.duty)
        return lambda at: low + span if (at - phase) % period < edge else low
    fall = ns(signal.fall)

    def ramp(at: int) -> float:
        place = (at - phase) % period
        level = place / (period - fall) if place < period - fall else (period - place) / fall
        return low + level * span

    return ramp


def _states(signal: Signal) -> At:
    ends = list(accumulate(ns(each.lasts) for each in signal.states))
    values = [each.value for each in signal.states]
    phase = ns(signal.phase)
    return lambda at: values[bisect_right(ends, (at - phase) % ends[-1])]


def _cycle(signal: Signal) -> tuple[int, int, Callable[[int], int]]:
    on, off, phase = ns(signal.on), ns(signal.off), ns(signal.phase)
    return on, on + off, lambda at: (at - phase) % (on + off)


def _counter(signal: Signal, low: int, high: int, named: Named) -> At:
    """Counts from 1970 on, exactly, and wraps from high to low: nothing has to be remembered."""
    width = max(1, high - low + 1)
    if signal.counts is not None:
        counted = named(signal.counts)
        period = (
            ns(counted.period) or ns(counted.on) + ns(counted.off) or sum(ns(each.lasts) for each in counted.states)
        )
        if not period:
            raise ValueError(f"{signal.counts} has no period to count; write counts for a ramp, sine, square or cycles")
        phase = ns(counted.phase)
        return lambda at: low + (at - phase) // period % width
    # Whole numbers only: a float would lose a count after some years.
    rate = round((signal.rate or 0) * 1_000_000)
    if signal.running is None:
        return lambda at: low + at * rate // (SECOND * 1_000_000) % width
    runs = named(signal.running)
    if runs.shape != "cycles":
        raise ValueError(f'{signal.running} is no on/off cycle; write running for a tag with shape = "cycles"')
    on, whole, _ = _cycle(runs)
    start = ns(runs.phase)

    def counter(at: int) -> int:
        cycles, place = divmod(at - start, whole)
        return low + (cycles * on + min(place, on)) * rate // (SECOND * 1_000_000) % width

    return counter
