"""Which Modbus requests read a device's tags. Pure: it knows addresses and limits, and no connection.

What is asked for is the fewest requests, and of those the fewest registers. The tags of one table and one period are
sorted by address; those that lie within another's registers go with it at no cost, and a group that is read together
counts as one. What remains are spans whose beginnings and ends both grow. Two facts make the rest short:

- *Some best plan cuts this row into stretches.* Say a plan has requests R and S, R beginning first, and an x in S lies
  before a y in R. If S ends first, all of S lies within R's reach and S is not needed. If not, all of R from S's
  beginning on can move to S: S grows by nothing, R only shrinks, and neither gets a wider gap. Repeated, no two
  requests interleave.
- *A stretch that fits still fits when it loses its first or last span*, since no span covers for another's gap. So the
  fewest requests from span i on are one more than from as far as a request beginning at i can reach (greedy by address,
  minimal), and never grow with i.

Among the cuts that keep the count, the least sum of registers is found from the back. Every cut that i may choose lies
in one unbroken row, those with one request less, from its beginning to i's reach: a running minimum over that row
answers for all i. Sorting costs the most, and the result is the best there is, not merely a good one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from agent.address import ModbusAddress, ModbusTable, registers
from agent.encoding import sentinels
from agent.limits import Limits, Span
from agent.model import Tag

if TYPE_CHECKING:
    from agent._native import Field

FUNCTIONS = {ModbusTable.CO: 1, ModbusTable.DI: 2, ModbusTable.HR: 3, ModbusTable.IR: 4}
_TABLES = {code: table for table, code in FUNCTIONS.items()}


@dataclass(frozen=True, slots=True)
class Request:
    """One read every `period` seconds: `count` registers or bits from `address`, and the tags that lie in them."""

    function: int
    address: int
    count: int
    tags: tuple[Tag, ...]
    period: float = 1.0

    @property
    def bits(self) -> bool:
        return self.function < FUNCTIONS[ModbusTable.HR]

    @property
    def size(self) -> int:
        """Bytes of register or bit values in its response."""
        return (self.count + 7) // 8 if self.bits else self.count * 2

    def fields(self) -> list[Field]:
        """Where each tag lies in the response, for the core's `modbus_plan`."""
        return [_field(tag, self.address) for tag in self.tags]

    def of(self, tag: Tag) -> Request:
        """The request that reads one of its tags by itself."""
        return _request(self.function, self.period, _units([tag]))

    def split(self) -> tuple[Request, ...]:
        """Two requests that read the same tags, or the request alone where it can't be cut: what is tried where a
        device refuses the whole (exceptions 02 and 03).

        It is cut in a gap where it has any, in the one nearest the middle: a device that has nothing there is the
        likeliest reason. Otherwise in the middle, so that one bad tag of n is found in about 2 * log2(n) requests.
        Tags of one register or one group, and values that share registers, stay together.
        """
        units = _outer(_units(self.tags))
        if len(units) < 2:
            return (self,)
        cuts = [at for at in range(1, len(units)) if units[at].start > units[at - 1].end] or [
            at for at in range(1, len(units)) if units[at].start == units[at - 1].end
        ]
        if not cuts:
            return (self,)
        at = min(cuts, key=lambda cut: abs(2 * cut - len(units)))
        return tuple(_request(self.function, self.period, part) for part in (units[:at], units[at:]))


@dataclass(frozen=True, slots=True)
class _Unit:
    """What can't be cut: registers or bits from `start` to before `end`, with the tags in them."""

    start: int
    end: int
    tags: tuple[Tag, ...]


def requests(tags: Iterable[Tag], limits: Limits | None = None, poll: float = 1.0) -> list[Request]:
    """The fewest requests for `tags` within the limits, of those the fewest registers; in the order of tables and
    addresses. `poll` is the period, in seconds, of tags that have none of their own.

    The tags have to be readable (`agent.limits.unreadable` names those that are not): one wider than the limit gets a
    request of its own, which its device will refuse.
    """
    limits = limits or Limits()
    shared: dict[tuple[int, float], list[Tag]] = {}
    alone: dict[tuple[int, float], list[Tag]] = {}
    holes: list[Span] = []
    for tag in tags:
        place = ModbusAddress.parse(tag.address)
        key = FUNCTIONS[place.table], tag.poll or poll
        if limits.isolates(tag, place):
            alone.setdefault(key, []).append(tag)
            holes.append(Span(place.table, place.number, place.number + _width(tag) - 1))
        else:
            shared.setdefault(key, []).append(tag)
    found = [_request(*key, [unit]) for key, some in alone.items() for unit in _units(some)]
    for (function, period), some in shared.items():
        table = _TABLES[function]
        units = _outer(_units(some))
        barred = _disjoint(span for span in (*limits.forbidden, *holes) if span.table is table)
        found += [
            _request(function, period, units[first:end])
            for first, end in _stretches(units, limits.most(table), limits.gap(table), barred)
        ]
    return sorted(found, key=lambda request: (request.function, request.address, request.period))


def _field(tag: Tag, start: int) -> Field:
    place = ModbusAddress.parse(tag.address)
    none = sentinels(tag.invalid, tag.type, tag.form)
    return {
        "tag": tag.index,
        "at": place.number - start,
        "type": tag.type,
        "order": tag.order,
        "bit": place.bit,
        "length": tag.length,
        "form": tag.form,
        "high": place.byte == "h",
        "invalid": none.patterns,
        "nan": none.nan,
    }


def _width(tag: Tag) -> int:
    return registers(tag.type, tag.length, tag.form)


def _request(function: int, period: float, units: Sequence[_Unit]) -> Request:
    start, end = units[0].start, max(unit.end for unit in units)
    placed = sorted((ModbusAddress.parse(tag.address).number, tag.index, tag) for unit in units for tag in unit.tags)
    return Request(function, start, end - start, tuple(tag for _, _, tag in placed), period)


def _units(tags: Iterable[Tag]) -> list[_Unit]:
    """The tags by place: those of one group, and those of the very same registers, are one."""
    groups: dict[str | tuple[int, int], list[tuple[int, int, Tag]]] = {}
    for tag in tags:
        start = ModbusAddress.parse(tag.address).number
        end = start + _width(tag)
        groups.setdefault(tag.together or (start, end), []).append((start, end, tag))
    return [
        _Unit(min(start for start, _, _ in some), max(end for _, end, _ in some), tuple(tag for _, _, tag in some))
        for some in groups.values()
    ]


def _outer(units: Iterable[_Unit]) -> list[_Unit]:
    """Sorted, with every unit that lies within another put into it: beginnings and ends both grow from one to the
    next."""
    found: list[_Unit] = []
    for unit in sorted(units, key=lambda unit: (unit.start, -unit.end)):
        if found and unit.end <= found[-1].end:
            last = found[-1]
            found[-1] = _Unit(last.start, last.end, (*last.tags, *unit.tags))
        else:
            found.append(unit)
    return found


def _stretches(units: Sequence[_Unit], most: int, gap: int, barred: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The best cut of the row: (first, end) of each request's units. See the head of this file."""
    count = len(units)
    joins = [_joins(one, other, gap, barred) for one, other in pairwise(units)]
    reach = [count] * count
    for first in range(count - 2, -1, -1):
        end = reach[first + 1] if joins[first] else first + 1
        while end > first + 1 and units[end - 1].end - units[first].start > most:
            end -= 1
        reach[first] = end
    # Of the row from `first` on: the fewest requests, their registers, and where the second of them begins.
    fewest = [0] * (count + 1)
    least = [0] * (count + 1)
    cut = [count] * (count + 1)
    # best[at]: the cut, from the lowest one of the same count as `at` up to `at`, with which a request ends cheapest.
    best = list(range(count + 1))
    for first in range(count - 1, -1, -1):
        fewest[first] = fewest[reach[first]] + 1
        if fewest[first] > fewest[first + 1]:
            _running(best, fewest, least, units, first + 1)
        at = best[reach[first]]
        cut[first] = at
        least[first] = units[at - 1].end - units[first].start + least[at]
    found: list[tuple[int, int]] = []
    first = 0
    while first < count:
        found.append((first, cut[first]))
        first = cut[first]
    return found


def _running(best: list[int], fewest: list[int], least: list[int], units: Sequence[_Unit], first: int) -> None:
    """Fills `best` for the row of cuts that begins at `first` and is complete."""
    here = first
    for at in range(first, len(best)):
        if fewest[at] != fewest[first]:
            break
        if units[at - 1].end + least[at] <= units[here - 1].end + least[here]:
            here = at  # of equals the last: the first request is as long as it can be
        best[at] = here


def _disjoint(spans: Iterable[Span]) -> list[tuple[int, int]]:
    """(first, last) of the addresses in any of them: sorted, and none touches another."""
    found: list[tuple[int, int]] = []
    for span in sorted(spans, key=lambda span: span.first):
        if found and span.first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], span.last)
        else:
            found.append((span.first, span.last))
    return found


def _joins(one: _Unit, other: _Unit, gap: int, barred: Sequence[tuple[int, int]]) -> bool:
    """Whether one request may read both: nothing is read for nothing that must not be, and not too much."""
    hole = other.start - one.end
    if hole <= 0:
        return True
    before = bisect_left(barred, (other.start, 0))  # those that begin before the other
    return hole <= gap and not (before and barred[before - 1][1] >= one.end)
