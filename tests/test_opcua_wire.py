"""What a server may do on the wire, and what it may not: sequence numbers that are missing or begin again, too many
PublishRequests, namespaces that change places, and answers that are made to harm."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.collectors.base import DeviceState, supervise
from agent.collectors.opcua.memory import LAST
from tests.opcua_collector import Rig, node, running, until
from tests.opcua_script import ScriptedServer, message
from tests.opcua_vectors import opening


def values(rig: Rig) -> list[object]:
    return [value for value, quality in rig.of(0) if quality == 0]


async def test_a_notification_that_got_lost_is_asked_for() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            await server.publish(2, lost=True)
            await server.publish(3)
            await until(lambda: values(rig) == [1, 2, 3])
            assert 2 in server.asked
            assert rig.collector.counters["missing"] == 0

        await running(rig, work)


async def test_a_notification_that_is_gone_is_a_gap() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            before = time.time_ns()
            await server.publish(2, lost=True, forgotten=True)
            await server.publish(3)
            await until(lambda: rig.collector.counters["missing"] == 1)
            [loss] = rig.intake.cut()[2]
            assert loss.from_ns <= before <= loss.to_ns
            assert "notifications that the server no longer had" in loss.reason
            assert values(rig) == [1, 3]

        await running(rig, work)


async def test_a_notification_that_is_too_large_is_a_gap() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            await server.publish(2, large=True, forgotten=True)
            await server.publish(3)
            await until(lambda: rig.collector.counters["missing"] == 1)
            assert len(rig.intake.cut()[2]) == 1
            assert values(rig) == [1, 3]
            assert rig.collector.counters["too_large"] == 1

        await running(rig, work)


async def test_more_structures_than_are_decoded_are_a_gap() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await server.publish(1)
            await server.publish(2, structures=1000)
            await until(lambda: len(rig.of(0)) == 1001)
            assert rig.intake.cut()[2] == []
            await server.publish(3, structures=1300)
            await server.publish(4)
            await until(lambda: rig.collector.counters["undecoded_dropped"])
            [loss] = rig.intake.cut()[2]
            assert (loss.count, loss.from_ns <= loss.to_ns) == (300, True)
            assert "structures and other values that are decoded slowly: more than 1,000" in loss.reason
            await until(lambda: values(rig)[-1:] == [4])
            assert len(rig.of(0)) == 2002

        await running(rig, work)


async def test_a_last_value_under_another_number_after_a_resume_is_left_out() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            at = datetime.now(UTC)
            await server.publish(1)
            await server.publish(2, lost=True, at=at)
            await until(lambda: values(rig) == [1])
            server.drop()
            await until(lambda: values(rig) == [1, 2])
            # Before that it would be asked for with Republish, as one of those that were missed.
            await until(lambda: rig.collector.counters["resumed"] == 1)
            await server.publish(2, at=at)  # as node-opcua does now and then
            await server.publish(3)
            await until(lambda: len(values(rig)) >= 3)
            assert values(rig) == [1, 2, 3]
            assert (rig.collector.counters["resumed"], rig.collector.counters["repeated_values"]) == (1, 1)

        await running(rig, work)


async def test_1_comes_after_the_last_sequence_number_on_the_wire() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"))

        async def work() -> None:
            await until(lambda: not server.idle)
            server.sequence = rig.collector._memory.sequence = LAST - 3
            for value in (1, 2, 3):
                await server.publish(value)
            await server.publish(4, lost=True)  # it is number 1
            await server.publish(5)
            await until(lambda: values(rig) == [1, 2, 3, 4, 5])
            assert server.sequence == 2
            assert 1 in server.asked
            assert rig.collector.counters["missing"] == 0

        await running(rig, work)


async def test_fewer_publish_requests_where_the_server_says_so() -> None:
    async with ScriptedServer() as server:
        server.most_publishes = 2
        rig = Rig(server.url, node("Counter"), publish_requests=5)

        async def work() -> None:
            for value in range(20):
                await server.publish(value)
            await until(lambda: values(rig) == list(range(20)))
            assert rig.collector.counters["publish_requests"] == 2
            assert server.refused == 3  # once each, and never again

        await running(rig, work)


async def test_namespaces_that_changed_places_give_the_right_nodes() -> None:
    async with ScriptedServer() as server:
        rig = Rig(server.url, node("Counter"), outage="1s")

        async def work() -> None:
            await until(lambda: server.nodes)
            assert [each.NamespaceIndex for each in server.nodes] == [2]
            server.namespaces.insert(1, "urn:another")  # ours was 2
            server.restart()
            await until(lambda: server.nodes[0].NamespaceIndex == 3)
            await server.publish(1)
            await until(lambda: values(rig) == [1])

        await running(rig, work)


Says = Callable[[int], bytes | Iterator[bytes]]
HUGE = struct.pack("<i", 2**31 - 1)


def chunks(number: int, count: int, size: int) -> Iterator[bytes]:
    """Chunks of a message that never ends."""
    return (message(bytes(size), number, 5 + at, b"MSGC") for at in range(count))


def read(results: bytes) -> Says:
    return lambda number: message(opening(634) + results, number, 4)


HOSTILE: dict[str, tuple[str, Says]] = {
    "a hello of 4 GiB": ("Hello", lambda _: b"ACKF" + struct.pack("<I", 2**32 - 1) + bytes(1000)),
    "a type that does not exist": ("Hello", lambda _: b"GETF" + struct.pack("<I", 64) + bytes(56)),
    "a chunk of 4 GiB": ("Read", lambda _: b"MSGF" + struct.pack("<I", 2**32 - 1) + bytes(1000)),
    "a chunk of 7 bytes": ("Read", lambda _: b"MSGF" + struct.pack("<I", 7) + bytes(100)),
    "a message of 64 MB": ("Read", lambda number: chunks(number, 1000, 65_000)),
    "chunks without an end": ("Read", lambda number: chunks(number, 5_000, 1)),
    "an array of 2^31 Nulls": ("Read", read(struct.pack("<i", 1) + b"\x01\x80" + HUGE)),
    "2^31 values": ("Read", read(HUGE)),
    "Variants in Variants": ("Read", read(struct.pack("<i", 1) + b"\x01" + b"\x18" * 60_000 + b"\x01\x01")),
    "an answer of another request": ("Read", lambda number: message(opening(634) + bytes(8), number + 99, 4)),
    "a header without an end": ("CreateSession", lambda number: message(b"\x01\x00\xd0\x01" + HUGE, number, 2)),
    "an answer that is none": ("CreateSubscription", lambda number: message(b"\xff" * 40, number, 5)),
    "items nobody asked for": ("CreateMonitoredItems", read(HUGE)),
    "publishing 2^31 Nulls": ("Publish", lambda number: message(opening(829) + b"\x80" + HUGE, number, 7)),
}


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_kb() -> int:
    """The most memory of this process since it was last reset."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0])


@pytest.mark.parametrize(("service", "says"), HOSTILE.values(), ids=list(HOSTILE))
async def test_a_hostile_server_is_refused_and_disturbs_nobody(service: str, says: Says) -> None:
    async with ScriptedServer() as good, ScriptedServer() as bad:
        bad.hostile[service] = says
        victim, rig = Rig(bad.url, node("Counter"), timeout="1s"), Rig(good.url, node("Counter"))
        state = DeviceState("d", counters=victim.collector.counters)

        async def work() -> None:
            await good.publish(0)
            await until(lambda: values(rig) == [0])
            forget_peak()
            before = peak_kb()
            task = asyncio.create_task(supervise(victim.collector, victim.intake, state))
            # The device is refused, and tried again; the other one's values come meanwhile.
            for value in range(1, 200):
                start = time.thread_time()  # the loop's own: a busy machine takes none of it
                await good.publish(value)
                await asyncio.sleep(0.01)
                assert time.thread_time() - start < 1
                if state.reconnects >= 2:
                    break
            await until(lambda: state.reconnects >= 2)
            task.cancel()
            await asyncio.wait([task])
            await until(lambda: values(rig) == list(range(value + 1)))
            assert peak_kb() - before < 50_000
            assert rig.collector.counters["renewed"] == 1
            assert values(victim) == []

        await running(rig, work)
