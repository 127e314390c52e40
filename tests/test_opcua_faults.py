"""What may go wrong between two steps that belong together, with a server that does on the wire what it is told."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from asyncua.ua.status_codes import StatusCodes

from tests.opcua_collector import Rig, node, running, until
from tests.opcua_script import ScriptedServer

MS = timedelta(milliseconds=1)


def values(rig: Rig, tag: int = 0) -> list[object]:
    return [value for value, quality in rig.of(tag) if quality >> 30 == 0]


async def test_a_subscription_with_our_number_from_after_a_restart_is_not_ours() -> None:
    """Another client has it: its handles are our handles, and its values would be our tags' values."""
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            server.session, server.started = False, datetime.now(UTC)
            server.items, server.kept, server.sequence = [0], {}, 1  # somebody else's, of which one was sent
            server.drop()
            await until(lambda: rig.collector.counters["transferred"] + rig.collector.counters["renewed"] == 2)
            assert rig.collector.counters["transferred"] == 0
            assert [loss.reason for loss in rig.intake.cut()[2]] == ["d: the server did not keep the subscription"]

        await running(rig, work)


async def test_a_subscription_of_the_same_server_is_transferred() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            server.session = False
            server.drop()
            await until(lambda: rig.collector.counters["transferred"] == 1)
            await server.publish(2)
            await until(lambda: values(rig) == [1, 2])

        await running(rig, work)


async def test_an_item_that_may_be_there_is_not_made_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that was bad is well, and the line breaks before the server has said so."""
    monkeypatch.setattr("agent.collectors.opcua.collector.RETRY_BAD", 0.1)
    async with ScriptedServer() as server:
        server.unknown = {"Late"}
        rig = Rig(server.url, node("Counter"), node("Late"))

        def break_the_line(_: int) -> bytes:
            server.items.append(1)
            del server.hostile["CreateMonitoredItems"]
            server.drop()
            return b""

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            server.hostile["CreateMonitoredItems"] = break_the_line
            server.unknown = set()
            await until(lambda: rig.take() and not rig.collector._memory.bad)
            assert sorted(server.items) == [0, 1]

        await running(rig, work)


async def test_a_repeated_value_is_seen_behind_a_read_one() -> None:
    """Away for longer than `outage`, so every value is read; then the server sends its last one again."""
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"), outage="1s")

        async def work() -> None:
            at = datetime.now(UTC)
            await server.publish(1, at=at)
            await until(lambda: values(rig) == [1])
            server.values["Counter"] = 1
            server.hostile["Hello"] = lambda _: server.drop() or b""  # type: ignore[func-returns-value]
            server.drop()
            await asyncio.sleep(1.2)
            server.hostile.clear()
            await until(lambda: rig.collector.counters["resumed"] == 1)
            await until(lambda: values(rig)[-1:] == [1] and len(values(rig)) == 2)  # the one that was read
            await server.publish(1, at=at)
            await server.publish(2)
            await until(lambda: 2 in values(rig))
            assert values(rig) == [1, 1, 2]
            assert rig.collector.counters["repeated_values"] == 1

        await running(rig, work)


async def test_an_aborted_notification_is_a_gap() -> None:
    """A server that finds a notification too large may cut it off after some chunks (OPC 10000-6, 6.7.3)."""
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"), timeout="1s")

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            server.hostile["Republish"] = server.abortion
            await server.publish(2, aborted=True)
            await server.publish(3)
            await until(lambda: values(rig) == [1, 3], 40)
            assert rig.collector.counters["too_large"] == 1
            server.drop()  # what can't be sent again must not keep the device away either
            await until(lambda: rig.collector.counters["resumed"] == 1, 40)
            await server.publish(4)
            await until(lambda: values(rig) == [1, 3, 4], 40)
            assert len(rig.intake.cut()[2]) <= 1

        await running(rig, work)


async def test_acknowledgements_of_a_refused_request_are_said_again() -> None:
    async with ScriptedServer() as server:
        server.keep_alive_count = 1000
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])  # committed
            server.refuses_once = True
            for value in range(2, 8):
                await server.publish(value)
                await until(lambda value=value: values(rig)[-1] == value)  # type: ignore[misc]
            await until(lambda: 1 not in server.kept, 40)

        await running(rig, work)


async def test_a_channel_that_can_not_be_renewed_is_a_fault() -> None:
    async with ScriptedServer() as server:
        server.channel_ms, server.keep_alive_count = 1000, 1000
        rig = Rig(server.url, node("Counter"))

        def refuse(number: int) -> bytes:
            del server.hostile["OpenSecureChannel"]
            return server.refusal(number, StatusCodes.BadTcpServerTooBusy)

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            server.hostile["OpenSecureChannel"] = refuse
            await until(lambda: rig.collector.counters["resumed"] == 1)

        await running(rig, work)


At = Callable[[int], datetime]


@pytest.fixture
def at() -> At:
    """When a counter's changes are: the first some seconds ago."""
    start = datetime.now(UTC).replace(microsecond=0) - 5000 * MS
    return lambda change: start + change * 100 * MS


def changes(rig: Rig, tag: int = 0) -> list[object]:
    """The good values in the order of their times."""
    rows = [(time_ns, value) for index, time_ns, value, quality in rig.take() if index == tag and quality >> 30 == 0]
    return [value for _, value in sorted(rows)]


async def test_an_overflow_without_bounds_is_a_gap(at: At) -> None:
    """The source's clock stands still, or goes back: nobody can tell from the history what is missing."""
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"), history="fill")

        async def work() -> None:
            await server.publish(1, at=at(1))
            await server.publish(5, at=at(1), overflow=True)
            await server.publish(9, at=at(0), overflow=True)
            await until(lambda: 9 in values(rig))
            [loss] = rig.losses
            assert "queues overflowed" in loss.reason

        await running(rig, work)


async def test_a_first_value_with_an_overflow_is_missed_once(at: At) -> None:
    async with ScriptedServer() as server:
        server.history = [(at(change), change) for change in range(20)]
        rig = Rig(server.url, node("Counter"), history="fill")

        async def work() -> None:
            await server.publish(1, at=at(1))
            await until(lambda: values(rig) == [1])
            server.restart()
            await server.publish(10, at=at(10), overflow=True)
            await until(lambda: rig.collector.counters["holes_filled"] >= 1)
            await until(lambda: len(changes(rig)) >= 10)
            await asyncio.sleep(0.3)
            assert changes(rig) == list(range(1, 11))

        await running(rig, work)


async def test_a_subscription_that_was_gone_before_its_first_value_doubles_nothing(at: At) -> None:
    async with ScriptedServer() as server:
        server.history = [(at(change), change) for change in range(20)]
        rig = Rig(server.url, node("Counter"), history="fill")

        async def work() -> None:
            await server.publish(1, at=at(1))
            await until(lambda: values(rig) == [1])
            for renewed in (2, 3):
                server.restart()
                await until(lambda: rig.collector.counters["renewed"] == renewed)  # noqa: B023
            await server.publish(10, at=at(10))
            await until(lambda: rig.collector.counters["holes_filled"] == 2)
            assert changes(rig) == list(range(1, 11))

        await running(rig, work)


async def test_a_hole_of_another_tag_list_is_a_gap(at: At) -> None:
    """It knows tags by their numbers, and after a change of the list those are others."""
    async with ScriptedServer() as server:
        server.history = [(at(change), change) for change in range(20)]
        rig = Rig(server.url, node("Counter"), history="fill")
        reads: list[int] = []

        async def before() -> None:
            await server.publish(1, at=at(1))
            await until(lambda: values(rig) == [1])
            server.hostile["HistoryRead"] = lambda number: reads.append(number) or b""  # type: ignore[func-returns-value]
            await server.publish(10, at=at(10), overflow=True)
            await until(lambda: reads)

        await running(rig, before)
        del server.hostile["HistoryRead"]
        other = Rig(server.url, node("Another"), node("Counter"), history="fill")
        other.intake.restore(rig.intake._marks)

        async def after() -> None:
            await until(lambda: other.collector.counters["renewed"] == 1)
            await server.publish(11, at=at(11))
            reasons = [loss.reason for loss in other.intake.cut()[2]]
            assert [each for each in reasons if "queues overflowed" in each], reasons
            await until(lambda: 11 in values(other))
            assert set(changes(other)) == {11}

        await running(other, after)


async def test_a_history_of_pages_with_few_continuation_points(at: At) -> None:
    """Two nodes, and a server that has a place for one point; one that is not used to its end is given back."""
    async with ScriptedServer() as server:
        server.history = [(at(change), change) for change in range(60)]
        server.page, server.most_points = 4, 1
        rig = Rig(server.url, node("Counter"), node("Other"), history="fill")

        async def work() -> None:
            for tag in (0, 1):
                await server.publish(1, at=at(1), handle=tag)
            await until(lambda: values(rig, 1) == [1])
            server.restart()
            for tag in (0, 1):
                await server.publish(30, at=at(30), handle=tag)
            await until(lambda: rig.collector.counters["holes_filled"] == 1)
            assert [changes(rig, tag) for tag in (0, 1)] == [list(range(1, 31))] * 2
            await until(lambda: not server.points)

        await running(rig, work)


async def test_points_are_given_back_where_a_history_is_given_up(at: At) -> None:
    async with ScriptedServer() as server:
        server.history = [(at(change), change) for change in range(60)]
        server.page, server.keep_alive_count = 4, 1000
        rig = Rig(server.url, node("Counter"), history="fill", timeout="500ms")

        async def work() -> None:
            await server.publish(1, at=at(1))
            await until(lambda: values(rig) == [1])
            server.silent = 2
            await server.publish(30, at=at(30), overflow=True)
            await until(lambda: rig.collector.counters["holes_filled"] == 1)
            assert changes(rig) == list(range(1, 31))
            await until(lambda: not server.points)

        await running(rig, work)


async def late(server: ScriptedServer, rig: Rig) -> At:
    """Lets the server take changes 0 and 1 out of its queues, and send the last one 500 ms later."""
    await server.publish(-1)
    await until(lambda: values(rig) == [-1])
    start = datetime.now(UTC)
    await server.publish(0, at=start)
    await asyncio.sleep(0.5)
    await server.publish(1, at=start + 20 * MS)
    await until(lambda: values(rig) == [-1, 0, 1])
    return lambda change: start + change * 20 * MS


async def test_a_gap_begins_where_values_were_taken_and_not_where_they_were_sent() -> None:
    """A server that could not publish sends old values late, and drops newer ones meanwhile."""
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            at = await late(server, rig)
            await server.publish(10, at=at(10), overflow=True)
            await until(lambda: values(rig)[-1] == 10)
            [loss] = rig.losses
            first, last = ((at(change) - datetime.fromtimestamp(0, UTC)) // MS * 1_000_000 for change in (2, 9))
            assert loss.from_ns < first < last < loss.to_ns

        await running(rig, work)


async def test_what_overflowed_around_a_restart_of_the_agent_is_filled() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"), history="fill")
        again = Rig(server.url, node("Counter"), history="fill")

        async def before() -> None:
            at = await late(server, rig)
            server.history = [(at(change), change) for change in range(20)]

        async def after() -> None:
            await server.publish(10, at=server.history[10][0], overflow=True)
            await until(lambda: again.collector.counters["holes_filled"] == 1)
            assert (changes(again), again.losses) == (list(range(2, 11)), [])

        await running(rig, before)
        again.intake.restore(rig.intake._marks)
        await running(again, after)


async def test_a_hole_of_the_other_server_is_a_gap(at: At) -> None:
    """Its history may have the same changes with other times, so some of them twice."""
    async with ScriptedServer() as first, ScriptedServer() as second:
        second.history = [(at(change), change) for change in range(20)]
        rig = Rig(first.url, node("Counter"), history="fill", backup=[second.url], timeout="500ms")
        reads: list[int] = []

        async def work() -> None:
            await first.publish(1, at=at(1))
            await until(lambda: values(rig) == [1])
            first.hostile["HistoryRead"] = lambda number: reads.append(number) or b""  # type: ignore[func-returns-value]
            await first.publish(10, at=at(10), overflow=True)
            await until(lambda: reads)
            first.hostile["Hello"] = lambda _: first.drop() or b""  # type: ignore[func-returns-value]
            first.drop()
            await until(lambda: rig.collector.counters["failovers"] == 1)
            await second.publish(20, at=at(20))
            await until(lambda: values(rig)[-1] == 20)
            assert changes(rig) == [1, 10, 20]
            assert [loss.reason for loss in rig.losses if f"{second.url} is used now" in loss.reason]

        await running(rig, work)


async def test_a_server_that_takes_no_publish_request_is_not_asked_without_a_pause() -> None:
    async with ScriptedServer() as server:
        server.most_publishes, server.keep_alive_count = 0, 1000
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await until(lambda: server.refused > 3)
            before = server.refused
            await asyncio.sleep(1.0)
            assert server.refused - before <= 20
            server.most_publishes = 3
            await server.publish(1)
            await until(lambda: values(rig) == [1])

        await running(rig, work)


async def test_a_channel_without_a_lifetime_is_not_renewed_without_a_pause() -> None:
    async with ScriptedServer() as server:
        server.channel_ms = 0
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            assert rig.collector.counters.get("channel_renewals", 0) == 0

        await running(rig, work)


async def test_a_line_that_breaks_while_a_session_is_resumed_costs_no_session() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        def error(_: int) -> bytes:
            del server.hostile["ActivateSession"]
            return b"ERRF" + struct.pack("<IIi", 16, StatusCodes.BadTcpServerTooBusy, -1)

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            server.hostile["ActivateSession"] = error
            server.drop()
            counters = rig.collector.counters
            await until(lambda: counters["resumed"] + counters["transferred"] + counters["renewed"] == 2)
            assert counters["resumed"] == 1

        await running(rig, work)


@pytest.mark.parametrize("year", [1601, 9999])
async def test_a_server_whose_clock_says_no_time_leaves_a_gap_with_bounds(year: int) -> None:
    async with ScriptedServer() as server:
        server.clock = datetime(year, 1, 1, tzinfo=UTC)
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            before = time.time_ns()
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            server.restart()
            await until(lambda: rig.collector.counters["renewed"] == 2)
            await server.publish(2)
            await until(lambda: values(rig) == [1, 2])
            [loss] = rig.losses
            assert before <= loss.from_ns <= loss.to_ns <= time.time_ns()

        await running(rig, work)


async def test_what_is_republished_waits_for_room_as_well() -> None:
    async with ScriptedServer() as server:
        server.keep_alive_count = 3
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            await until(lambda: values(rig) == [1])
            for value in (2, 3, 4):
                await server.publish(value, lost=True)
            rig.intake.hold()
            server.drop()
            await until(lambda: rig.collector.counters["withheld"] >= 2)
            assert values(rig) == [1]
            rig.intake.release()
            await until(lambda: values(rig) == [1, 2, 3, 4])

        await running(rig, work)


async def test_a_bad_node_of_a_poll_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.collectors.opcua.collector.RETRY_BAD", 0.2)
    async with ScriptedServer() as server:
        server.values, server.unknown = {"Counter": 1, "Late": 2}, {"Late"}
        rig = Rig(server.url, node("Counter"), node("Late"), mode="poll")

        async def work() -> None:
            await until(lambda: len(values(rig)) > 1)
            assert rig.of(1) == [(None, StatusCodes.BadNodeIdUnknown)]
            server.unknown = set()
            await until(lambda: values(rig, 1)[:2] == [2, 2])

        await running(rig, work)
