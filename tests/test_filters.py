"""Filters from the CSV's cell to the decoded block: what is kept, what is refused and what to write instead."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from agent._native import Buffer, decode
from agent.model import Tag, ValueType
from agent.taglist import read

SECOND = 1_000_000_000
BEGIN = 1_750_000_000 * SECOND


def listed(folder: Path, cell: str, kind: str = "float64", low: str = "", high: str = "") -> Tag:
    """The tag of a CSV with this cell in its filter column."""
    found = read(write(folder, cell, kind, low, high), "opcua")
    assert not found.problems, found.problems
    (row,) = found.rows
    it = row.traits
    return Tag(0, "d", row.name, "i=7", it.type.type, "x", low=it.low, high=it.high, filter=it.filter)


def write(
    folder: Path, cell: str, kind: str = "float64", low: str = "", high: str = "", *, address: str = "i=7"
) -> Path:
    path = folder / "tags.csv"
    path.write_text(f'name,address,type,low,high,filter\na,{address},{kind},{low},{high},"{cell}"\n')
    return path


def kept(tag: Tag, values: list[float], seal_every: int = 1000) -> list[tuple[int, float]]:
    """(second, value) of what comes out for these values, one a second."""
    buffer = Buffer([tag])
    found: list[tuple[int, float]] = []
    for second, value in enumerate(values, 1):
        buffer.push([(0, BEGIN + second * SECOND, value, 0)])
        if second % seal_every == 0 or second == len(values):
            block = buffer.seal()
            for _, time_ns, out, _ in decode(block.data).rows() if block else []:
                assert isinstance(out, float | int)
                found.append(((time_ns - BEGIN) // SECOND, out))
    stats = buffer.stats()
    assert stats["accepted"] == stats["filtered"] + stats["sealed_readings"] == len(values)
    assert stats["sealed_readings"] == len(found)
    return found


WAVE = [10 * math.sin(second / 20) for second in range(1, 401)]


def test_swinging_door_end_to_end(tmp_path: Path) -> None:
    points = kept(listed(tmp_path, "swinging_door=0.5"), WAVE)
    assert 10 < len(points) < 80
    assert (points[0][0], points[-1][0]) == (1, 400)
    for (left, a), (right, b) in pairwise(points):
        for second in range(left, right + 1):
            line = a + (b - a) * (second - left) / (right - left)
            assert abs(line - WAVE[second - 1]) <= 0.5


def test_a_seal_gives_out_the_held_reading_once(tmp_path: Path) -> None:
    flat = [1.0] * 50
    tag = listed(tmp_path, "swinging_door=0.5")
    assert kept(tag, flat) == [(1, 1.0), (50, 1.0)]
    assert kept(tag, flat, seal_every=10) == [(second, 1.0) for second in (1, 10, 20, 30, 40, 50)]
    assert [second for second, _ in kept(tag, flat, seal_every=1)] == list(range(1, 51))


def test_grid_end_to_end(tmp_path: Path) -> None:
    points = kept(listed(tmp_path, "grid=0.05"), WAVE)
    assert [second for second, _ in points] == list(range(1, 401))
    assert all(abs(value - WAVE[second - 1]) <= 0.05 for second, value in points)
    assert all(value == round(value, 1) for _, value in points), "the decimals that people know"
    whole = kept(listed(tmp_path, "grid=5", "int16"), list(range(-30, 31)))
    assert {value % 10 for _, value in whole} == {0}
    assert all(abs(value - was) <= 5 for (_, value), was in zip(whole, range(-30, 31), strict=True))


def test_float32_stays_within_the_bound(tmp_path: Path) -> None:
    tag = listed(tmp_path, "grid=0.000001", "float32")
    points = kept(tag, [second / 1024 for second in range(1, 1000)])
    assert all(abs(value - second / 1024) <= 1e-6 for second, value in points)


def test_a_deadband_in_percent_is_of_the_range(tmp_path: Path) -> None:
    tag = listed(tmp_path, "deadband=2%", low="-100", high="300")
    assert kept(tag, [0, 8, 8.5, 0.6, 0.4]) == [(1, 0), (3, 8.5), (5, 0.4)]
    assert kept(listed(tmp_path, "deadband=8"), [0, 8, 8.5, 0.6, 0.4]) == [(1, 0), (3, 8.5), (5, 0.4)]


def test_heartbeat_end_to_end(tmp_path: Path) -> None:
    tag = listed(tmp_path, "on_change; heartbeat=5s", "int32")
    assert [second for second, _ in kept(tag, [7] * 14)] == [1, 6, 11]
    tag = listed(tmp_path, "deadband=1 ;heartbeat = 0.1 m")
    assert [second for second, _ in kept(tag, [7.5] * 14)] == [1, 7, 13]
    tag = listed(tmp_path, "swinging_door=1; heartbeat=5000ms")
    assert [second for second, _ in kept(tag, [7.5] * 14)] == [1, 6, 11, 14]


def test_a_change_of_status_passes_with_the_reading_before_it() -> None:
    buffer = Buffer([Tag(0, "d", "a", "i=7", ValueType.FLOAT32, "x", filter="swinging_door=5")])
    rows: list[tuple[int, int, float | None, int]]
    rows = [(0, BEGIN + at, 1.5, 0x4000_0000 if at == 7 else 0) for at in range(20)]
    rows += [(0, BEGIN + 20, None, 0x8005_0000), (0, BEGIN + 21, math.nan, 0), (0, BEGIN + 21, 3.0, 0)]
    buffer.push(rows)
    block = buffer.seal()
    assert block is not None
    assert [time_ns - BEGIN for _, time_ns, *_ in decode(block.data).rows()] == [0, 6, 7, 8, 19, 20, 21, 21]


@pytest.mark.parametrize(
    ("cell", "canonical"),
    [
        ("on_change", "on_change"),
        ("deadband = .5", "deadband=.5"),
        ("deadband=0", "on_change"),
        ("deadband=0%; heartbeat=1h", "on_change; heartbeat=1h"),
        ("deadband = 2 %", "deadband=2%"),
        ("swinging_door=0.5;heartbeat=60s", "swinging_door=0.5; heartbeat=60s"),
        ("grid=1e-3 ; heartbeat = 1.5 m", "grid=1e-3; heartbeat=1.5m"),
    ],
)
def test_canonical_forms_are_what_the_core_reads(tmp_path: Path, cell: str, canonical: str) -> None:
    tag = listed(tmp_path, cell, low="0", high="10")
    assert tag.filter == canonical
    Buffer([tag])


@pytest.mark.parametrize(
    ("cell", "kind", "message", "hint"),
    [
        (
            "swing",
            "float64",
            "'swing' is not a filter",
            "write deadband=0.1, swinging_door=0.5, grid=0.05, on_change, or",
        ),
        ("swingingdoor=1", "float64", "is not a filter", "write swinging_door=0.5, or nothing"),
        ("deadband", "float64", "is not a filter", "or nothing"),
        ("on_change=1", "float64", "is not a filter", "or nothing"),
        ("deadband=x", "float64", "'x' is not a number", "one such as 0.1"),
        ("grid=0,5", "float64", "'0,5' is not a number", "write 0.5, with a point"),
        ("deadband=-1", "float64", "a deadband of -1 is below zero", "write deadband=0.1"),
        ("swinging_door=-1", "float64", "a swinging door of -1 is below zero", "write swinging_door=0.5"),
        ("swinging_door=0", "float64", "a swinging door of zero leaves nothing out", "write swinging_door=0.5"),
        ("grid=0", "int16", "a grid of zero leaves nothing out", "write grid=0.05, or nothing"),
        ("grid=2%", "float64", "a grid has no percent", "in the tag's unit, such as grid=0.05"),
        ("swinging_door=2%", "float64", "a swinging door has no percent", "such as swinging_door=0.5"),
        ("deadband=101%", "float64", "a deadband of 101 % is more than the range", "up to 100%"),
        ("deadband=1e999", "float64", "'1e999' is not a number", "one such as"),
        ("deadband=1", "bool", "a bool has no deadband", "write on_change, or nothing"),
        ("swinging_door=1", "string", "a string has no swinging door", "write on_change, or nothing"),
        ("grid=1", "bool", "a bool has no grid", "write on_change, or nothing"),
        ("heartbeat=60s", "float64", "has nothing to interrupt", "write on_change; heartbeat=60s"),
        ("on_change; heartbeat=60", "float64", "'60' is not a duration", "write heartbeat=60s (or with ms, m, h)"),
        ("on_change; heartbeat", "float64", "'' is not a duration", "write heartbeat=60s"),
        ("on_change; heartbeat=0s", "float64", "is not a duration above zero", "write heartbeat=60s"),
        ("on_change; heartbeat=1 week", "float64", "'1 week' is not a duration", "write heartbeat=60s"),
        ("on_change; heartbeat=9999h", "float64", "a heartbeat of 9999h is out of range", "from 1ms to 744h"),
        ("on_change; grid=1", "float64", "'grid=1' can't follow a filter", "write heartbeat=60s after the semicolon"),
        ("on_change;", "float64", "'' can't follow a filter", "write heartbeat=60s"),
    ],
)
def test_a_filter_that_can_not_be_says_what_to_write(
    tmp_path: Path, cell: str, kind: str, message: str, hint: str
) -> None:
    (one,) = read(write(tmp_path, cell, kind), "opcua").problems
    assert (one.field, one.line) == ("filter", 2)
    assert message in one.message
    assert one.hint.startswith("write ")
    assert hint in one.hint


def test_a_percentage_needs_a_range_that_somebody_knows(tmp_path: Path) -> None:
    assert read(write(tmp_path, "deadband=2%"), "opcua").problems == []  # the server's EURange
    (one,) = read(write(tmp_path, "deadband=2%", address="hr:1"), "modbus").problems
    assert "2% of a range that is not known" in one.message
    assert "write the tag's low and high" in one.hint


def test_a_range_that_comes_later_makes_the_filter() -> None:
    buffer = Buffer([Tag(0, "d", "a", "i=7", ValueType.FLOAT64, "x", filter="deadband=2%")])
    with pytest.raises(ValueError, match="without the tag's low and high"):
        buffer.set_range(0, 5.0, 5.0)
    buffer.push([(0, 1, 1.0, 0), (0, 2, 1.5, 0)])
    buffer.set_range(0, 0.0, 50.0)
    assert buffer.push([(0, at, value, 0) for at, value in enumerate((2.0, 3.0, 3.5), 3)]) == 2
    buffer.set_filtering([0], theirs=True)
    assert buffer.push([(0, 6, 3.6, 0)]) == 1
    buffer.set_filtering([0], theirs=False)  # it begins anew: what it knew is from before
    assert buffer.push([(0, 7, 3.7, 0), (0, 8, 3.8, 0)]) == 1
    block = buffer.seal()
    assert block is not None
    assert [value for _, _, value, _ in decode(block.data).rows()] == [1.0, 1.5, 2.0, 3.5, 3.6, 3.7]
    with pytest.raises(IndexError):
        buffer.set_range(1, 0.0, 1.0)
    with pytest.raises(IndexError):
        buffer.set_filtering([1], theirs=True)


def test_a_wrong_limit_is_one_problem(tmp_path: Path) -> None:
    problems = read(write(tmp_path, "deadband=2%", low="x", high="10"), "opcua").problems
    assert [problem.field for problem in problems] == ["low"]


@pytest.mark.parametrize(
    "wrong", ["deadband=0", "grid=inf", "swinging_door=nan", "deadband=0%", "on_change; heartbeat=0s"]
)
def test_the_core_refuses_what_no_config_lets_through(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"no filter .*; write on_change, deadband=0\.1"):
        Buffer([Tag(0, "d", "a", "i=7", ValueType.FLOAT64, "x", filter=wrong)])
