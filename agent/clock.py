"""The gateway's clock: what readings are stamped by, how far the wall clock is from it, and whether that is right.

Stamps are a steady clock plus an offset. The offset is taken anew from the wall clock only in `Clock.look`, which the
pipeline calls at the moment when it cuts a block: all stamps of a block have the same one, so that one number says by
how much they are off, and none of them goes back because the wall clock did. Nothing waits by this clock.
"""

from __future__ import annotations

import ctypes
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("headrace.clock")

STEP_NS = 10_000_000
"""The wall clock was set, and not only steered, where it moved by this much against the steady one between looks."""
JITTER_NS = 100_000
"""Less than this is how exactly two clocks can be read one after the other."""
_TIME_ERROR = 5
_LARGEST_TIMEX = 512
"""Bytes; `struct timex` has 208 on 64-bit Linux. Only the return value is read, so its layout does not matter."""

if sys.platform == "linux":
    _STEADY = time.CLOCK_BOOTTIME  # it goes on while the machine is suspended

    def steady_ns() -> int:
        """ns since the machine started."""
        return time.clock_gettime_ns(_STEADY)
else:
    steady_ns = time.monotonic_ns


def synchronized() -> bool | None:
    """Whether the system says that its clock is synchronised (adjtimex(2)); None where nobody can know."""
    if sys.platform != "linux":
        return None
    try:
        # All zero: modes 0 asks, and changes nothing.
        state = int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_LARGEST_TIMEX)))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def boot() -> str:
    """What this start of the machine is called: offsets of another one mean nothing. Empty where it has no name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@dataclass(frozen=True, slots=True)
class Look:
    """What holds for the stamps that were made since the look before.

    `right`: the clock was known to be right all the while. `doubted`: it was known not to be synchronised at their
    beginning. `offset_ns`: what they were made with.
    """

    right: bool
    doubted: bool
    offset_ns: int


class Clock:
    """`now_ns` stamps; `look` asks how the clock is. `wall`, `steady` and `ask` are what it is made of."""

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        steady: Callable[[], int] = steady_ns,
        ask: Callable[[], bool | None] = synchronized,
    ) -> None:
        self.wall, self.steady, self.ask = wall, steady, ask
        self.trusted = False
        """Whether the clock counts as right whatever the system says: PTP and the like do not tell it."""
        self.steps = 0
        self.begin()

    def begin(self, *, trusted: bool = False) -> None:
        """Takes everything anew, as at the start."""
        self.trusted = trusted
        self.steps = 0
        self._told: bool | None = True
        self.offset_ns = self._measure()
        self.synchronized = self._status()

    def now_ns(self) -> int:
        """ns UTC, as far as this gateway knows."""
        return self.steady() + self.offset_ns

    def look(self) -> Look:
        """Asks the system; from here on stamps have the offset that was found. Logs what changed, once."""
        before, offset_ns = self.synchronized, self.offset_ns
        found_ns, self.synchronized = self._measure(), self._status()
        step_ns = found_ns - offset_ns
        stepped = abs(step_ns) >= STEP_NS
        if abs(step_ns) >= JITTER_NS:
            self.offset_ns = found_ns
        if stepped:
            self.steps += 1
            facts = {"event": "clock_stepped", "step_ns": step_ns}
            log.warning("the wall clock was set: it stepped by %+.3f s", step_ns / 1e9, extra=facts)
        self._tell()
        right = bool(before and self.synchronized and not stepped)
        return Look(right, before is False, offset_ns)

    def facts(self) -> dict[str, bool | int]:
        """`synchronized`, and how often the wall clock stepped since the start."""
        return {"synchronized": bool(self.synchronized), "steps": self.steps}

    def _status(self) -> bool | None:
        return True if self.trusted else self.ask()

    def _measure(self) -> int:
        """The wall clock minus the steady one: of three tries the one in which the least time passed."""
        tries = []
        for _ in range(3):
            before = self.steady()
            wall = self.wall()
            took = self.steady() - before
            tries.append((took, wall - before - took // 2))
        return min(tries)[1]

    def _tell(self) -> None:
        if self.synchronized == self._told:
            return
        self._told = self.synchronized
        if self.synchronized:
            log.info("the clock is synchronised", extra={"event": "clock_synchronized"})
            return
        why = "does not say whether the clock is" if self.synchronized is None else "says that the clock is not"
        text = 'the system %s synchronised; blocks say so (NTP, or clock = "trusted" in [agent])'
        log.warning(text, why, extra={"event": "clock_unsynchronized"})


GATEWAY = Clock()
"""The one clock of this process, as `time.time_ns` is."""


def now_ns() -> int:
    """`GATEWAY.now_ns`: the stamp of what happens now, ns UTC."""
    return GATEWAY.now_ns()
