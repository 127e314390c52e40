"""Finds out what is behind a Modbus address: units, their device identification, and what of their tables can be read.

It only reads: functions 1 to 4, and 43/14. Everything goes over one line of the agent's own (`agent.collectors.line`),
so that no late answer of one unit counts for another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from agent.address import ModbusTable
from agent.collectors.frames import Discard, Frame, Question, read_pdu
from agent.collectors.line import Line
from agent.collectors.requests import FUNCTIONS
from agent.collectors.turns import Turn
from agent.endpoint import LineSettings
from agent.errors import NotConnected
from agent.limits import MAX_BITS, MAX_REGISTERS

ILLEGAL_FUNCTION = 1
MOST_PAGES = 64
"""Requests for one level of an identification: a device whose pages never end is not followed for ever."""
OBJECTS = {
    0: "VendorName",
    1: "ProductCode",
    2: "MajorMinorRevision",
    3: "VendorUrl",
    4: "ProductName",
    5: "ModelName",
    6: "UserApplicationName",
}
"""Names of the objects that the specification knows (V1.1b3, 6.21); the others are the device's own."""

NAMES = {
    ModbusTable.CO: "coils",
    ModbusTable.DI: "discrete inputs",
    ModbusTable.HR: "holding registers",
    ModbusTable.IR: "input registers",
}
Told = Callable[[float, int, str], None]
Range = tuple[int, int]
"""First and last address, both included."""


@dataclass(slots=True)
class TableFound:
    """What is known of one table. What is in none of the ranges was refused."""

    readable: list[Range] = field(default_factory=list)
    unknown: list[Range] = field(default_factory=list)
    """Not looked at: the requests were used up, or the unit stopped answering."""
    refused: str = ""
    """Why nothing of it was asked further."""


@dataclass(slots=True)
class UnitFound:
    """What is known of one unit."""

    unit: int
    identification: dict[int, str] = field(default_factory=dict)
    tables: dict[ModbusTable, TableFound] = field(default_factory=dict)


class _Identify(Question):
    """One page of Read Device Identification: code 1, 2 or 3, from an object on."""

    def judge(self, frame: Frame, *, any_unit: bool = False) -> bytes | int | Discard:
        pdu = frame.pdu
        if frame.unit != self.unit and not any_unit:
            return Discard.FOREIGN
        if pdu[0] == 0x2B | 0x80:
            return pdu[1] if len(pdu) == 2 else Discard.LONG
        if len(pdu) < 7:
            return Discard.SHORT
        return pdu[3:] if pdu[:3] == self.pdu[:3] else Discard.WRONG


class _Unit:
    """A unit on the line, and the last answer that it gave."""

    def __init__(self, unit: int, timeout: float) -> None:
        self.unit = unit
        self.timeout = timeout
        self.late = timeout
        self.tries = 2
        names = ("requests", "timeouts", "exceptions", "discarded", *(f"discarded_{each}" for each in Discard))
        self.counters = dict.fromkeys(names, 0)
        self.answer: bytes | int = b""

    def answered(self, question: Question, payload: bytes, time_ns: int) -> None:  # noqa: ARG002
        self.answer = payload

    def refused(self, question: Question, code: int, time_ns: int) -> Sequence[Question]:  # noqa: ARG002
        self.answer = code
        return ()


class Survey:
    """One look at a line. What was found so far is in `found` at any time, also after a cancellation.

    `rate` is requests a second at most, `timeout` seconds for an answer, `span` the addresses looked at, and `budget`
    how many requests one table of one unit may take. `told(done, all, doing)` hears how far it is.
    """

    def __init__(
        self,
        settings: LineSettings,
        units: Iterable[int],
        *,
        tables: Sequence[ModbusTable] = tuple(ModbusTable),
        span: Range = (0, 999),
        timeout: float = 0.5,
        rate: float = 50.0,
        budget: int = 1500,
        told: Told = lambda done, all, doing: None,  # noqa: A006, ARG005
    ) -> None:
        self.found: list[UnitFound] = []
        self.requests = 0
        self.complete = False
        self._line = Line(settings)
        self._units = [_Unit(unit, timeout) for unit in units]
        self._tables = tables
        self._span = span
        self._pause = 1 / rate
        self._budget = budget
        self._told = told
        self._next = 0.0
        self._steps = 0

    async def run(self) -> None:
        """Looks at everything. Raises NotConnected where the line can't be opened."""
        for each in self._units:
            self._line.attach(each)
        try:
            present = await self._present()
            self._steps = len(present) * (1 + len(self._tables))
            for at, (member, found) in enumerate(present):
                done = at * (1 + len(self._tables))
                self._told(done, self._steps, f"unit {member.unit}: identification")
                await self._identify(member, found)
                for nth, table in enumerate(self._tables, 1):
                    found.tables[table] = TableFound()
                    await self._search(member, table, found.tables[table], done + nth)
            self._told(self._steps, self._steps, "done")
            self.complete = True
        finally:
            for each in self._units:
                self._line.detach(each)

    async def _ask(self, member: _Unit, question: Question, tries: int = 2) -> bytes | int:
        """Values, or the code of an exception. Raises NotConnected where nobody answers."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._next - loop.time())
        self._next = max(self._next, loop.time()) + self._pause
        self.requests += 1
        await self._line.ask(Turn(member, [question], member, tries=tries))
        return member.answer

    async def _present(self) -> list[tuple[_Unit, UnitFound]]:
        """The units that answer at all; an exception is an answer, but for a gateway's."""
        present: list[tuple[_Unit, UnitFound]] = []
        for at, member in enumerate(self._units):
            self._told(at, len(self._units), f"looking for unit {member.unit}")
            try:
                await self._ask(member, _read(member, ModbusTable.HR, 0, 1), tries=1)
            except NotConnected:
                if at == 0 and not member.counters["requests"]:
                    raise  # not even sent: the line is not there
                continue
            present.append((member, UnitFound(member.unit)))
            self.found.append(present[-1][1])
        return present

    async def _identify(self, member: _Unit, found: UnitFound) -> None:
        """Basic, regular and extended objects, as far as the device conforms."""
        code, level = 1, 1
        while code <= level:
            first = 0
            for _ in range(MOST_PAGES):
                try:
                    page = await self._ask(member, _Identify(member.unit, bytes((0x2B, 0x0E, code, first)), 250))
                except NotConnected:
                    return
                if isinstance(page, int):
                    return
                level = min(page[0] & 3, 3)
                found.identification.update(_objects(page))
                more, following = page[1], page[2]
                if more != 0xFF or following <= first:
                    break
                first = following
            code += 1

    async def _search(self, member: _Unit, table: ModbusTable, found: TableFound, began: int) -> None:
        """Asks for as much as a request may hold. Where that is refused, it goes from address to address, and where one
        is readable it doubles and then halves what it asks for, until the end of the range is found."""
        most = MAX_BITS if table.bits else MAX_REGISTERS
        first, last = self._span
        at, left = first, self._budget

        async def readable(start: int, count: int) -> bool:
            nonlocal left
            if left <= 0:
                raise _Enough
            left -= 1
            answer = await self._ask(member, _read(member, table, start, count))
            if answer == ILLEGAL_FUNCTION:
                raise _NoTable(f"function {FUNCTIONS[table]} is not supported (exception 1)")
            if isinstance(answer, int):
                return False
            found.readable.append((start, start + count - 1))
            return True

        try:
            while at <= last:
                end = min(at + most - 1, last)
                if await readable(at, end - at + 1):
                    at = end + 1
                while at <= end:
                    share = (at - first) / (last - first + 1)
                    self._told(began + share, self._steps, f"unit {member.unit}: {NAMES[table]} from {at}")
                    # What follows a range is known to be refused, unless the block ended it.
                    at = min(at + await _reach(readable, at, end) + 1, end + 1)
        except _Enough:
            found.unknown = [(at, last)]
        except (NotConnected, _NoTable) as reason:
            found.refused = str(reason)
            found.unknown = [(at, last)] if found.readable else []
        finally:
            found.readable = merged(found.readable)


async def _reach(readable: Callable[[int, int], Awaitable[bool]], at: int, end: int) -> int:
    """How many addresses from `at` to `end` can be read in one request."""
    size, most = 0, end - at + 1
    step = 1
    while size < most and await readable(at, min(step, most)):
        size, step = min(step, most), 2 * step
    refused = min(step, most + 1) if size < most else size + 1
    while refused - size > 1:
        middle = (size + refused) // 2
        if await readable(at, middle):
            size = middle
        else:
            refused = middle
    return size


class _Enough(Exception):
    """The requests are used up."""


class _NoTable(Exception):
    """The device has no such table."""


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same addresses in order, with those that touch as one range."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def _read(member: _Unit, table: ModbusTable, first: int, count: int) -> Question:
    size = (count + 7) // 8 if table.bits else 2 * count
    return Question(member.unit, read_pdu(FUNCTIONS[table], first, count), size)


def _objects(page: bytes) -> dict[int, str]:
    """The objects of a page (conformity, more, next, count, then id, length and text of each), as far as they go."""
    found: dict[int, str] = {}
    at = 4
    for _ in range(page[3]):
        if at + 2 > len(page):
            break
        number, size = page[at], page[at + 1]
        text = page[at + 2 : at + 2 + size].decode("utf-8", "replace")
        found[number] = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
        at += 2 + size
    return found
