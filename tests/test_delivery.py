"""The parts of delivery that need neither a broker nor a clock."""

from __future__ import annotations

import random
from uuid import uuid4

import pytest

from agent.budget import FIRST_ESTIMATE, Budget, Estimate, Limit
from agent.errors import Rejected
from agent.flight import Flight
from agent.piece import HEAD_BYTES, MOST, Assembly, split
from agent.ranges import Ranges
from agent.suspicion import LEAST, POISON, Suspicion
from agent.wire import MOST_BEYOND, Receipt


@pytest.mark.parametrize("seed", range(20))
def test_ranges_are_a_set_of_numbers(seed: int) -> None:
    chance, ranges, model = random.Random(seed), Ranges(), set[int]()
    for _ in range(200):
        first = chance.randrange(1, 60)
        last = first + chance.randrange(-1, 12)
        span = set(range(first, last + 1))
        if chance.random() < 0.6:
            assert ranges.add(first, last) == len(span - model)
            model |= span
        else:
            ranges.discard(first, last)
            model -= span
        assert {number for begin, end in ranges for number in range(begin, end + 1)} == model
        assert all(end + 1 < begin for (_, end), (begin, _) in zip(list(ranges), list(ranges)[1:], strict=False))
        assert ranges.count(first, last) == len(span & model)
        assert (first in ranges, ranges.last) == (first in model, max(model, default=0))
        free = next((number for number in range(first + 1, 81) if number not in model), None)
        found = ranges.free(first, 80)
        assert (found[0] if found else None) == free
        if found:
            assert not set(range(found[0], found[1] + 1)) & model
            assert found[1] == 80 or found[1] + 1 in model
        copy = ranges.copy()
        copy.add(1, 100)
        assert ranges.last == max(model, default=0)


def test_receipts_say_what_lies_beyond() -> None:
    stream = uuid4()
    plain = Receipt(stream, 7)
    assert plain.encode() == f'{{"stream":"{stream}","committed":7}}'.encode()
    assert Receipt.decode(plain.encode()) == plain
    selective = Receipt(stream, 7, ((9, 9), (12, 40)))
    assert Receipt.decode(selective.encode()) == selective
    many = Receipt(stream, 0, tuple((2 * at, 2 * at) for at in range(1, 1000)))
    assert len(Receipt.decode(many.encode()).beyond) == MOST_BEYOND


@pytest.mark.parametrize(
    "beyond",
    [
        '"9"',
        "[[7,9]]",
        "[[9,8]]",
        "[[9]]",
        "[[9,10],[10,11]]",
        "[9]",
        "[[9,true]]",
        "[[9,9.5]]",
        f"[{'[9,9],' * 300}[9,9]]",
    ],
)
def test_receipts_that_can_not_be(beyond: str) -> None:
    with pytest.raises(ValueError, match="receipt"):
        Receipt.decode(f'{{"stream":"{uuid4()}","committed":7,"beyond":{beyond}}}'.encode())


def test_a_block_comes_together_from_its_pieces_in_any_order() -> None:
    chance, stream = random.Random(3), uuid4()
    body = chance.randbytes(10_000)
    pieces = split(body, stream, 5, 600)
    assert max(map(len, pieces)) == 600
    other = split(body[::-1], stream, 6, 700)
    mixed = [("a", each) for each in [*pieces, *other, *pieces[:3]]]
    chance.shuffle(mixed)
    assembly = Assembly()
    found = [whole for agent, each in mixed if (whole := assembly.add(agent, each)) is not None]
    assert sorted(found) == sorted([body, body[::-1]])
    assert assembly.held_bytes <= 3 * 600


def test_pieces_are_bounded() -> None:
    stream = uuid4()
    with pytest.raises(Rejected, match="does not fit"):
        split(bytes(MOST * 10 + 1), stream, 1, HEAD_BYTES + 10)
    with pytest.raises(Rejected):
        split(bytes(10), stream, 1, HEAD_BYTES)
    assembly = Assembly(max_bytes=1000)
    for sequence in range(100):
        assert assembly.add("a", split(bytes(900), stream, sequence, 500)[0]) is None
        assert assembly.held_bytes <= 1000
    assert assembly.dropped > 90
    whole = split(bytes(900), stream, 1, 500)
    broken = [
        b"",
        whole[0][:HEAD_BYTES],
        whole[0][:4] + b"\x02" + whole[0][5:],
        whole[0][:29] + b"\xff\xff" + whole[0][31:],
    ]
    for each in broken:
        with pytest.raises(ValueError, match="piece"):
            assembly.add("a", each)
    damaged = [whole[0][:-1] + b"\x01", *whole[1:]]
    *first, last = damaged
    for each in first:
        assembly.add("b", each)
    with pytest.raises(ValueError, match="do not make it"):
        assembly.add("b", last)


def test_flight_sends_again_only_what_has_no_receipt() -> None:
    flight = Flight(patience=10.0)
    for place in range(1, 11):
        flight.acknowledge(flight.launch(place, place, 100, 0.0, live=True), 0.1, refused=False)
    assert (flight.bytes, flight.waiting(0, 12)) == (1000, 2)
    assert flight.arrive(1, 4, 1.0) == 4
    assert flight.arrive(7, 10, 1.0) == 4
    assert flight.arrive(7, 10, 1.0) == 0
    assert flight.overdue(9.9) == []
    assert [sent.first for sent in flight.overdue(10.1)] == [5, 6]
    assert flight.taken.free(0, 12) == (5, 6)
    flight.launch(5, 5, 100, 10.1, live=False)
    assert flight.overdue(29.0) == []  # twice as patient the second time
    assert [sent.first for sent in flight.overdue(30.2)] == [5]
    flight.begin()
    assert list(flight.taken) == [(1, 4), (7, 10)]
    flight.forget(2)
    assert list(flight.taken) == [(1, 2)]


def test_flight_notices_what_was_overtaken() -> None:
    flight = Flight(patience=100.0)
    for at, place in enumerate((1, 2, 3)):
        flight.acknowledge(flight.launch(place, place, 1, at * 1.0, live=True), at + 0.1, refused=False)
    flight.arrive(3, 3, 2.5)
    assert [sent.first for sent in flight.overdue(2.6)] == [1]  # the second was sent only a second before


def test_flight_believes_an_answer_without_news() -> None:
    flight = Flight(patience=20.0)
    flight.acknowledge(flight.launch(1, 1, 1, 0.0, live=True), 0.1, refused=False)
    unacknowledged = flight.launch(2, 2, 1, 0.0, live=True)
    flight.nothing_new(1.0)
    assert flight.overdue(1.5) == []
    assert [sent.first for sent in flight.overdue(2.3)] == [1]
    assert list(flight.sent.values()) == [unacknowledged]


def test_a_budget_in_bytes() -> None:
    budget, now, sent = Budget(Limit.parse("10 kB/s")), 0.0, 0
    while now < 60.0:
        if pause := budget.pause(now, on_their_way=3):
            now += pause
            continue
        budget.spend(700, now)
        sent += 700
    assert sent == pytest.approx(600_000, rel=0.03)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_budget_as_a_share_of_the_time(share: float) -> None:
    budget = Budget(Limit.parse(f"{share:.0%}"))
    now, busy, free_at = 0.0, 0.0, 0.0
    while now < 300.0:
        flying = now < free_at
        pause = budget.pause(now, on_their_way=int(flying))
        if pause and not flying:
            now += pause
        elif flying and (pause or free_at - now > 0.2):
            now = free_at
        else:
            budget.spend(1000, now)
            free_at = max(now, free_at) + 0.1  # what the line needs for it
            busy += 0.1
    assert busy / now == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("text", ["", "fast", "0 %", "101 %", "50", "10 B/s", "-1 kB/s", "10 kB"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(ValueError, match="; write"):
        Limit.parse(text)


def test_the_end_of_a_backlog_is_estimated() -> None:
    estimate = Estimate()
    for second in range(20):
        estimate.note(100_000 - 2000 * second, float(second))
        if second < FIRST_ESTIMATE:
            assert estimate.seconds(100_000, float(second)) == -1
    assert estimate.seconds(62_000, 19.0) == pytest.approx(31.0)
    estimate.clear()
    assert estimate.seconds(62_000, 20.0) == -1


def test_what_is_acknowledged_each_time_anew_is_no_progress() -> None:
    """A line that lives for milliseconds has no receipts for what went before the block that ends it."""
    suspicion = Suspicion()
    for _ in range(2):
        suspicion.acknowledged(1)
        suspicion.acknowledged(2)
        suspicion.hung_up([(3, 1), (4, 1)], heard=True, size=60_000)
    suspicion.acknowledged(1)
    assert suspicion.careful
    suspicion.hung_up([(3, 1)], heard=True, size=60_000)
    assert suspicion.limit == 30_000
    arrived = Ranges()
    arrived.add(1, 3)  # by another broker: it will never be acknowledged by this one
    suspicion.arrived(arrived)
    assert not suspicion.careful


def test_who_is_innocent_does_not_hide_who_is_not() -> None:
    """What goes before the culprit is acknowledged in time on some connections, and on others it is not."""
    suspicion = Suspicion()
    for acknowledged in (2, 3, 1):
        assert not suspicion.careful or acknowledged == 1
        for place in range(1, acknowledged):
            suspicion.acknowledged(place)
        suspicion.hung_up([(place, 1) for place in range(acknowledged, 6)], heard=True, size=60_000)
    assert suspicion.careful
    for place in (1, 2):
        suspicion.acknowledged(place)
        assert suspicion.careful
    suspicion.hung_up([(3, 1)], heard=True, size=60_000)
    assert suspicion.limit == 30_000
    for place in (3, 4, 5):
        suspicion.acknowledged(place)
    assert not suspicion.careful


def test_the_block_that_a_broker_hangs_up_on_is_found() -> None:
    suspicion, size = Suspicion(), 60_000
    assert suspicion.hung_up([], heard=True, size=0) is None
    careful = [suspicion.careful]
    for _ in range(2):
        suspicion.hung_up([(4, 1), (5, 1), (6, 1)], heard=False, size=size)
        careful.append(suspicion.careful)
    suspicion.acknowledged(4)  # alone, it passes
    assert [*careful, suspicion.careful] == [False, False, True, True]
    suspicion.hung_up([(5, 1)], heard=False, size=size)  # that may have been the line
    assert suspicion.limit is None
    while (suspicion.limit or size) > LEAST:
        assert suspicion.hung_up([(5, 9)], heard=True, size=suspicion.limit or size) is None
    strikes = 1
    while suspicion.hung_up([(5, 9)], heard=True, size=LEAST) is None:
        strikes += 1
    assert strikes == POISON
    assert not suspicion.careful
