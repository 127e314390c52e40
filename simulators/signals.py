"""Shapes of signals: pure functions of a step number, without state.

They use integers and the four operations of IEEE 754 only. `math.sin` may differ in its last bit between machines, and
then one stored reading in a million would look altered.
"""

from __future__ import annotations

from collections.abc import Callable

Shape = Callable[[int], float]
"""From a step number to a level in [0, 1]."""

MASK = (1 << 64) - 1
_GOLDEN = 0x9E37_79B9_7F4A_7C15


def mix(key: int, n: int) -> int:
    """64 well-mixed bits (splitmix64) that belong to the n-th place of the sequence `key`."""
    x = (key + n * _GOLDEN) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58_476D_1CE4_E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D0_49BB_1331_11EB) & MASK
    return x ^ (x >> 31)


def draw(key: int, n: int) -> float:
    """The same as a number in [0, 1)."""
    return (mix(key, n) >> 11) * 2.0**-53


def sine(key: int, period: int, noise: float = 0.02) -> Shape:
    """A wave of `period` steps with noise on it (Bhaskara's approximation, which is within 0.2 %)."""
    shift = key % period

    def at(k: int) -> float:
        phase = ((k + shift) % period) * 2 / period
        half = phase if phase < 1 else phase - 1
        arc = 4 * half * (1 - half)
        level = 0.5 + 0.5 * (1 - noise) * (4 * arc / (5 - arc)) * (1 if phase < 1 else -1)
        return level + noise * 0.5 * (draw(key, k) - 0.5)

    return at


def ramp(key: int, period: int) -> Shape:
    """Rises for nine tenths of `period` steps and falls back in the last tenth: a press stroke, a filling vessel."""
    shift = key % period
    top = period * 9 // 10

    def at(k: int) -> float:
        place = (k + shift) % period
        return place / top if place <= top else (period - place) / (period - top)

    return at


def walk(key: int, period: int) -> Shape:
    """A random walk that stays in its range: three octaves of smoothed noise, the slowest of `period` steps."""
    slow, middle, fast = _octave(key, period, 0.70), _octave(key + 1, period // 6, 0.22), _octave(key + 2, 5, 0.08)
    return lambda k: slow(k) + middle(k) + fast(k)


def _octave(key: int, period: int, weight: float) -> Shape:
    """Smoothed noise in [0, weight], with a knot every `period` steps. The last two are kept: drawing costs most."""
    stride = max(2, period)
    last: tuple[int, float, float] = (-1, 0.0, 0.0)

    def at(k: int) -> float:
        nonlocal last
        n, rest = divmod(k, stride)
        if n != last[0]:
            first = draw(key, n) * weight
            last = (n, first, draw(key, n + 1) * weight - first)
        x = rest / stride
        return last[1] + last[2] * (x * x * (3 - 2 * x))

    return at


def hold(key: int, period: int, levels: int) -> Shape:
    """One of `levels` levels, drawn anew every `period` steps: a state, a setpoint."""
    top = max(1, levels - 1)

    def at(k: int) -> float:
        return (mix(key, k // period) % levels) / top

    return at


def square(key: int, period: int, duty: float) -> Shape:
    """1 for about `duty` of each period's steps and 0 for the rest; no two periods have the same edge."""
    shift = key % period

    def at(k: int) -> float:
        n, place = divmod(k + shift, period)
        edge = period * duty * (0.5 + draw(key, n))
        return 1.0 if place < edge else 0.0

    return at


def counter(key: int, rate: int, per: int) -> Callable[[int], int]:
    """An integer that rises by `rate` every `per` steps, for ever; the caller wraps it to the range of its type."""
    shift = key % per

    def at(k: int) -> int:
        return (k + shift) * rate // per

    return at
