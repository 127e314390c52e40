"""What is wrong with a virtual device at the moment, and the record of it that `headrace verify` reads.

A fault of a device has one of these kinds. On a serial line "cut" means silence, as there is nothing to cut.

    away        every client is cut and none gets in; an OPC UA server is gone, and new when it is back
    reboot      the same, and the OPC UA server's namespaces have other indexes afterwards
    slow        answers come `delay` later (Modbus)
    busy        every request gets exception 06 (Modbus)
    exception   requests that touch `addresses`, or all without any, get exception `code` (Modbus)
    garbled     answers have the function code of another request, or end too early (Modbus)
    frozen      values and source times stand still, and nothing says so
    bad         values are gone, their status is Bad_SensorFailure (OPC UA)
    one_client  a second client is cut at once (Modbus over TCP and TLS)
    clock       the device's clock is `offset` ahead, and gains `drift`: source times (OPC UA), datetimes (Modbus)
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from agent.address import ModbusTable
from agent.limits import Span


class Wrong(StrEnum):
    """The kinds."""

    AWAY = "away"
    REBOOT = "reboot"
    SLOW = "slow"
    BUSY = "busy"
    EXCEPTION = "exception"
    GARBLED = "garbled"
    FROZEN = "frozen"
    BAD = "bad"
    ONE_CLIENT = "one_client"
    CLOCK = "clock"


GONE = (Wrong.AWAY, Wrong.REBOOT)
"""Kinds during which nobody is connected; what was on its way when they began is gone as well."""
HIDING = (*GONE, Wrong.FROZEN, Wrong.BAD)
"""Kinds during which a device shows no change to anyone."""
REMEMBERED = 32
"""Faults of a device that are over, of which it still knows when they were."""

MODBUS = (Wrong.SLOW, Wrong.BUSY, Wrong.EXCEPTION, Wrong.GARBLED, Wrong.ONE_CLIENT)
OPCUA = (Wrong.BAD, Wrong.REBOOT)
"""Kinds that only devices of one protocol have."""


@dataclass(frozen=True, eq=False, slots=True)
class Ill:
    """One fault of one device. Two with equal fields are two."""

    kind: Wrong
    delay: float = 0.2
    """Seconds; of `slow`."""
    code: int = 4
    """Exception; of `exception`."""
    addresses: tuple[Span, ...] = ()
    offset: float = 0.0
    """Seconds; of `clock`."""
    drift: float = 0.0
    """Parts per million; of `clock`."""


def ahead(time_ns: int, since_ns: int, offset: float, drift: float) -> int:
    """How many ns a clock is ahead at a time, that began to be so at `since_ns`."""
    return int(offset * 1e9) + int((time_ns - since_ns) * drift) // 1_000_000


class Mood:
    """What is wrong with one device now. Faults may overlap; each is taken back by itself."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._ills: list[tuple[Ill, int]] = []
        self._over: deque[tuple[Ill, int, int]] = deque(maxlen=REMEMBERED)

    def begin(self, ill: Ill, time_ns: int) -> None:
        self._ills.append((ill, time_ns))

    def end(self, ill: Ill, time_ns: int) -> None:
        self._over.extend((each, since, time_ns) for each, since in self._ills if each is ill)
        self._ills = [each for each in self._ills if each[0] is not ill]

    def _lasting(self, kind: Wrong, time_ns: int) -> list[tuple[Ill, int]]:
        """Those of a kind at a time, with since when: for who is late, and does at once what was due then."""
        now = [(ill, since) for ill, since in self._ills if ill.kind is kind and since <= time_ns]
        return now + [
            (ill, since) for ill, since, until in self._over if ill.kind is kind and since <= time_ns <= until
        ]

    def at(self, kind: Wrong, time_ns: int) -> bool:
        """Whether a fault of this kind lasted at that time."""
        return bool(self._lasting(kind, time_ns))

    def shown_ns(self, time_ns: int) -> int:
        """What the device's clock shows at a time."""
        return time_ns + sum(
            ahead(time_ns, since, ill.offset, ill.drift) for ill, since in self._lasting(Wrong.CLOCK, time_ns)
        )

    def __bool__(self) -> bool:
        return bool(self._ills)

    @property
    def kinds(self) -> tuple[Wrong, ...]:
        return tuple(dict.fromkeys(ill.kind for ill, _ in self._ills))

    def has(self, *kinds: Wrong) -> bool:
        return any(ill.kind in kinds for ill, _ in self._ills)

    @property
    def away(self) -> bool:
        return self.has(Wrong.AWAY, Wrong.REBOOT)

    @property
    def delay(self) -> float:
        return max((ill.delay for ill, _ in self._ills if ill.kind is Wrong.SLOW), default=0.0)

    @property
    def frozen_ns(self) -> int | None:
        """Since when the values stand still."""
        return min((since for ill, since in self._ills if ill.kind is Wrong.FROZEN), default=None)

    def refusal(self, table: ModbusTable, first: int, count: int) -> int | None:
        """The exception that a read gets, if any."""
        for ill, _ in self._ills:
            if ill.kind is Wrong.BUSY:
                return 6
            if ill.kind is Wrong.EXCEPTION and (
                not ill.addresses
                or any(
                    span.table is table and span.first < first + count and span.last >= first for span in ill.addresses
                )
            ):
                return ill.code
        return None


@dataclass(frozen=True, slots=True)
class Spell:
    """A fault that was: `to_ns` is None where it had not ended."""

    device: str
    kind: Wrong
    from_ns: int
    to_ns: int | None
    offset: float = 0.0
    drift: float = 0.0
    """Of a clock, as in `Ill`."""

    def lasts(self, time_ns: int) -> bool:
        """Whether it was then."""
        return self.from_ns <= time_ns <= (time_ns if self.to_ns is None else self.to_ns)


@dataclass(frozen=True, slots=True)
class Clock:
    """How a device's clock was wrong from one time to another, by all that was wrong with it then."""

    from_ns: int
    to_ns: int | None
    spells: tuple[Spell, ...]

    def lasts(self, time_ns: int) -> bool:
        """Whether it was then."""
        return self.from_ns <= time_ns <= (time_ns if self.to_ns is None else self.to_ns)

    def shown_ns(self, time_ns: int) -> int:
        """What a clock like this shows at a time."""
        return time_ns + sum(ahead(time_ns, each.from_ns, each.offset, each.drift) for each in self.spells)

    def true_ns(self, shown_ns: int) -> int:
        """When it shows that, to a microsecond or two: a drift changes next to nothing from one guess to the next."""
        found = shown_ns
        for _ in range(30):
            found, before = found + shown_ns - self.shown_ns(found), found
            if found == before:
                break
        return found


def clocks(spells: Iterable[Spell], device: str) -> list[Clock]:
    """How its clock was wrong, piece by piece: what is wrong with it at once adds up."""
    wrong = [each for each in spells if each.device == device and each.kind is Wrong.CLOCK]
    ends = sorted({each.from_ns for each in wrong} | {each.to_ns for each in wrong if each.to_ns is not None})
    pieces = [*pairwise(ends), *([(ends[-1], None)] if ends else [])]
    found = []
    for from_ns, to_ns in pieces:
        at = from_ns if to_ns is None else (from_ns + to_ns) // 2
        open_ = [each for each in wrong if each.lasts(at) and (to_ns is not None or each.to_ns is None)]
        if open_:
            found.append(Clock(from_ns, to_ns, tuple(open_)))
    return found


class Record:
    """The faults of all runs in a file, a JSON line at each beginning and end, so that what was wrong can be told from
    what was lost."""

    def __init__(self, path: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self.path = path
        self._clock = clock

    @classmethod
    def beside(cls, data_dir: Path, clock: Callable[[], int] = time.time_ns) -> Record:
        """Where both `simulate` and `verify` of one config find it."""
        return cls(data_dir / "simulator" / "faults.jsonl", clock)

    def began(self, device: str, kind: Wrong, **more: float) -> int:
        """Returns when, in ns UTC. `more`: a clock's `offset` and `drift`."""
        return self._write(device, kind, "began", more)

    def ended(self, device: str, kind: Wrong, since_ns: int | None = None) -> int:
        """Returns when, in ns UTC. `since_ns` tells it from others of its kind; left out, it is the oldest."""
        return self._write(device, kind, "ended", {} if since_ns is None else {"since": since_ns})

    def was(self, device: str, kind: Wrong, from_ns: int, to_ns: int) -> None:
        """What is over already."""
        self._add({"device": device, "kind": kind, "began": from_ns})
        self._add({"device": device, "kind": kind, "ended": to_ns, "since": from_ns})

    def started(self) -> None:
        """The devices are new: what a simulator that was killed left open is over."""
        if self.path.exists():
            self._add({"started": self._clock()})

    def _write(self, device: str, kind: Wrong, what: str, more: Mapping[str, float]) -> int:
        time_ns = self._clock()
        self._add({"device": device, "kind": kind, what: time_ns, **more})
        return time_ns

    def _add(self, facts: Mapping[str, object]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    def spells(self) -> list[Spell]:
        """What the file has; nothing where it is not there. A line that is no record is passed over."""
        try:
            lines = self.path.read_text("utf-8").splitlines()
        except OSError:
            return []
        open_: list[Spell] = []
        found = []
        for line in lines:
            try:
                said = json.loads(line)
                if isinstance(started := said.get("started"), int):
                    found += [replace(each, to_ns=started) for each in open_]
                    open_ = []
                    continue
                key = str(said["device"]), Wrong(said["kind"])
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            if isinstance(began := said.get("began"), int):
                clock = float(said.get("offset", 0.0)), float(said.get("drift", 0.0))
                open_.append(Spell(*key, began, None, *clock))
            elif isinstance(ended := said.get("ended"), int):
                since = said.get("since")
                mine = (each for each in open_ if (each.device, each.kind) == key and since in (None, each.from_ns))
                if over := next(mine, None):
                    open_.remove(over)
                    found.append(replace(over, to_ns=ended))
        return found + open_


class Act:
    """One fault of one device that begins and ends, and is on record."""

    def __init__(self, mood: Mood, ill: Ill, record: Record) -> None:
        self._mood = mood
        self._ill = ill
        self._record = record
        self._since_ns: int | None = None

    async def begin(self) -> None:
        ill = self._ill
        more = {"offset": ill.offset, "drift": ill.drift} if ill.kind is Wrong.CLOCK else {}
        self._since_ns = self._record.began(self._mood.device, ill.kind, **more)
        self._mood.begin(ill, self._since_ns)

    async def end(self) -> None:
        self._mood.end(self._ill, self._record.ended(self._mood.device, self._ill.kind, self._since_ns))


def hidden(spells: Iterable[Spell], device: str, margin_ns: int) -> Sequence[tuple[int, int]]:
    """The intervals in which the device showed nobody a change; with a margin for what was on its way when it went."""
    return [
        (each.from_ns - (margin_ns if each.kind in GONE else 0), each.to_ns if each.to_ns is not None else 2**63 - 1)
        for each in spells
        if each.device == device and each.kind in HIDING
    ]
