"""The planner against a naive reference, which tries every way to share the tags among requests."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.address import ModbusAddress, ModbusTable, registers
from agent.collectors.requests import FUNCTIONS, Request, requests
from agent.limits import Limits, Span
from agent.model import Tag, ValueType

TYPES = {1: ValueType.INT16, 2: ValueType.FLOAT32, 4: ValueType.UINT64}
HR = ModbusTable.HR


def tag(index: int, address: str, kind: ValueType = ValueType.INT16, **options: object) -> Tag:
    return replace(Tag(index, "d", f"t{index}", address, kind, f"88.1/{index}"), **options)  # type: ignore[arg-type]


def spans(found: list[Request]) -> list[tuple[int, int, int]]:
    return [(request.function, request.address, request.count) for request in found]


def extent(each: Tag) -> tuple[int, int]:
    start = ModbusAddress.parse(each.address).number
    return start, start + registers(each.type, each.length, each.form)


def groupings(items: list[list[Tag]]) -> Iterator[list[list[list[Tag]]]]:
    """Every way to put the items into piles."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for piles in groupings(rest):
        yield [[first], *piles]
        for at in range(len(piles)):
            yield [*piles[:at], [first, *piles[at]], *piles[at + 1 :]]


def allowed(pile: list[list[Tag]], limits: Limits) -> int | None:
    """Registers that one request for the pile reads; None where it would be against the limits."""
    covered: set[int] = set()
    for group in pile:
        edges = [extent(each) for each in group]
        covered.update(range(min(start for start, _ in edges), max(end for _, end in edges)))
    first, last = min(covered), max(covered)
    if last - first + 1 > limits.max_registers:
        return None
    hole = 0
    for address in range(first, last + 1):
        hole = 0 if address in covered else hole + 1
        if hole > limits.max_gap or (hole and limits.forbids(HR, address, address + 1)):
            return None
    return last - first + 1


def cheapest(tags: list[Tag], limits: Limits) -> tuple[int, int]:
    """The fewest requests, and their fewest registers."""
    groups: dict[str, list[Tag]] = {}
    for each in tags:
        groups.setdefault(each.together or str(each.index), []).append(each)
    best = (len(tags) + 1, 0)
    for piles in groupings(list(groups.values())):
        sizes = [allowed(pile, limits) for pile in piles]
        if None not in sizes:
            best = min(best, (len(piles), sum(size for size in sizes if size)))
    return best


@st.composite
def plants(draw: st.DrawFn) -> tuple[list[Tag], Limits]:
    most = draw(st.integers(4, 12))
    limits = Limits(
        max_registers=most,
        max_gap=draw(st.integers(0, 6)),
        forbidden=tuple(
            Span(HR, first, first + draw(st.integers(0, 2))) for first in draw(st.lists(st.integers(0, 30), max_size=2))
        ),
    )
    found: list[Tag] = []
    for index in range(draw(st.integers(1, 6))):
        width = draw(st.sampled_from((1, 1, 2, 4)))
        start = draw(st.integers(0, 26))
        if not limits.forbids(HR, start, start + width):
            together = draw(st.sampled_from(("", "", "", "x")))
            each = tag(index, f"hr:{start}", TYPES[width], together=together)
            edges = [extent(other) for other in (*found, each) if other.together and together]
            first, end = (min(e[0] for e in edges), max(e[1] for e in edges)) if edges else (0, 0)
            if end - first <= most and not limits.forbids(HR, first, end):
                found.append(each)
    return found, limits


@settings(max_examples=400, deadline=None)
@given(plants())
def test_no_plan_has_fewer_requests_or_fewer_registers(plant: tuple[list[Tag], Limits]) -> None:
    tags, limits = plant
    found = requests(tags, limits)
    assert sorted(each.index for request in found for each in request.tags) == [each.index for each in tags]
    for request in found:
        for each in request.tags:
            start, end = extent(each)
            assert request.address <= start
            assert end <= request.address + request.count
        groups: dict[str, list[Tag]] = {}
        for each in request.tags:
            groups.setdefault(each.together or str(each.index), []).append(each)
        assert allowed(list(groups.values()), limits) == request.count
    if tags:
        assert (len(found), sum(request.count for request in found)) == cheapest(tags, limits)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.sampled_from((1, 2, 4))), min_size=1, max_size=60), st.data())
def test_splitting_finds_the_bad_tag_alone_in_few_requests(placed: list[tuple[int, int]], data: st.DataObject) -> None:
    tags = [tag(at, f"hr:{start}", TYPES[width]) for at, (start, width) in enumerate(dict(placed).items())]
    bad = data.draw(st.sampled_from(tags))
    hole = extent(bad)[0]
    asked = 0
    left = requests(tags, Limits())
    refused = []
    while left:
        request = left.pop()
        if not request.address <= hole < request.address + request.count:
            continue
        asked += 1
        parts = request.split()
        assert sorted(each.index for part in parts for each in part.tags) == sorted(e.index for e in request.tags)
        if len(parts) == 1:
            refused.append(request)
        else:
            left += parts
    assert any(bad in request.tags for request in refused)
    overlapping = {each for each in tags if extent(each)[0] <= hole < extent(each)[1]}
    assert all(overlapping & set(request.tags) for request in refused)
    assert asked <= 2 * (2 + len(tags).bit_length()) * len(refused)


def test_gaps_up_to_the_limit_are_read_and_wider_ones_are_not() -> None:
    tags = [tag(0, "hr:0"), tag(1, "hr:11"), tag(2, "hr:23")]
    assert spans(requests(tags)) == [(3, 0, 12), (3, 23, 1)]
    assert spans(requests(tags, Limits(max_gap=11))) == [(3, 0, 24)]
    assert spans(requests(tags, Limits(max_gap=0))) == [(3, 0, 1), (3, 11, 1), (3, 23, 1)]
    coils = [tag(0, "co:0", ValueType.BOOL), tag(1, "co:161", ValueType.BOOL), tag(2, "co:323", ValueType.BOOL)]
    assert spans(requests(coils)) == [(1, 0, 162), (1, 323, 1)]


def test_of_as_many_requests_those_with_fewer_registers() -> None:
    # Greedy alone would put 0 and 8 into one request and read the seven between them for nothing.
    tags = [tag(0, "hr:0"), tag(1, "hr:8"), tag(2, "hr:10"), tag(3, "hr:11")]
    assert spans(requests(tags, Limits(max_registers=10))) == [(3, 0, 1), (3, 8, 4)]


def test_a_wide_value_is_never_torn() -> None:
    counters = [tag(at, f"hr:{at * 4}", ValueType.UINT64) for at in range(100)]
    for most in (4, 5, 7, 125):
        for request in requests(counters, Limits(max_registers=most)):
            assert request.count <= most
            assert request.address % 4 == request.count % 4 == 0


def test_limits_of_tables_periods_and_functions() -> None:
    tags = [
        tag(0, "hr:0"), tag(1, "ir:1"), tag(2, "co:2", ValueType.BOOL), tag(3, "di:3", ValueType.BOOL),
        tag(4, "hr:1", poll=10.0), tag(5, "hr:2"), tag(6, "hr:2.3", ValueType.BOOL),
    ]  # fmt: skip
    found = requests(tags, Limits(), 0.5)
    assert [(request.function, request.address, request.count, request.period) for request in found] == [
        (1, 2, 1, 0.5), (2, 3, 1, 0.5), (3, 0, 3, 0.5), (3, 1, 1, 10.0), (4, 1, 1, 0.5),
    ]  # fmt: skip
    assert [each.index for each in found[2].tags] == [0, 5, 6]
    assert [request.bits for request in found] == [True, True, False, False, False]
    many = [tag(at, f"di:{at}", ValueType.BOOL) for at in range(4001)]
    assert [request.count for request in requests(many)] == [2000, 2000, 1]
    assert [request.size for request in requests(many)] == [250, 250, 1]
    assert len(requests(many, Limits(max_bits=100))) == 41


def test_alone_together_and_forbidden() -> None:
    row = [tag(at, f"hr:{at}") for at in range(6)]
    assert spans(requests(row, Limits(alone=(Span(HR, 2, 2),)))) == [(3, 0, 2), (3, 2, 1), (3, 3, 3)]
    marked = [replace(each, alone=each.index == 2) for each in row]
    assert spans(requests(marked)) == [(3, 0, 2), (3, 2, 1), (3, 3, 3)]
    bits = [tag(at, f"hr:9.{at}", ValueType.BOOL, alone=True) for at in range(3)]
    assert spans(requests(bits)) == [(3, 9, 1)]
    sparse = [tag(0, "hr:0"), tag(1, "hr:9"), tag(2, "hr:19")]
    assert spans(requests(sparse, Limits(forbidden=(Span(HR, 4, 5),)))) == [(3, 0, 1), (3, 9, 11)]
    assert spans(requests(sparse, Limits(forbidden=(Span(ModbusTable.IR, 4, 5),)))) == [(3, 0, 20)]
    group = [replace(sparse[0], together="x"), sparse[1], replace(tag(3, "hr:100"), together="x")]
    assert spans(requests(group, Limits(max_gap=0))) == [(3, 0, 101)]
    (one,) = requests(group, Limits(max_gap=0))
    assert one.split() == (one,)


def test_a_refused_request_is_cut_in_its_gap_first() -> None:
    (whole,) = requests([tag(0, "hr:0"), tag(1, "hr:1"), tag(2, "hr:2"), tag(3, "hr:6")])
    assert spans(list(whole.split())) == [(3, 0, 3), (3, 6, 1)]
    assert spans(list(whole.split()[0].split())) == [(3, 0, 1), (3, 1, 2)]
    overlapping = requests([tag(0, "hr:0", ValueType.FLOAT32), tag(1, "hr:1", ValueType.FLOAT32)])
    assert overlapping[0].split() == tuple(overlapping)


def test_the_order_of_the_tags_changes_nothing() -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    tags = [tag(at, f"hr:{chance.randrange(400)}", TYPES[chance.choice((1, 2, 4))]) for at in range(120)]
    shuffled = chance.sample(tags, len(tags))
    assert requests(tags) == requests(shuffled), f"seed {seed}"


@pytest.mark.parametrize("table", ["hr", "co"])
def test_ten_thousand_tags_of_one_device_are_planned_at_once(table: str) -> None:
    kind = ValueType.BOOL if table == "co" else ValueType.FLOAT32
    tags = [tag(at, f"{table}:{at * 6 + at % 3}", kind) for at in range(10_000)]
    began = time.process_time()
    found = requests(tags)
    assert time.process_time() - began < 2
    assert sum(len(request.tags) for request in found) == 10_000
    assert found[0].function == FUNCTIONS[ModbusTable(table)]
