"""The pure parts of the OPC UA collector: sequence numbers, what is remembered, what is asked of a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.address import NodeAddress
from agent.collectors.opcua.memory import LAST, MOST_BAD, Memory, after, ahead
from agent.collectors.opcua.profile import CHUNK, S7_CHUNK, Deadband, Limits, deadband, of_readings, queue_size
from agent.config import OpcUaDevice
from agent.model import Tag, ValueType

DEVICE = {"protocol": "opcua", "name": "d", "url": "opc.tcp://h:1", "tags": "d.csv"}


def device(**more: object) -> OpcUaDevice:
    return OpcUaDevice.model_validate(DEVICE | more)


def tag(rule: str, kind: ValueType = ValueType.FLOAT64, **more: float) -> Tag:
    return Tag(0, "d", "t", "i=1", kind, "x", filter=rule, **more)  # type: ignore[arg-type]


def test_1_follows_the_last_sequence_number() -> None:
    assert [after(0), after(1), after(LAST - 1), after(LAST)] == [1, 2, LAST, 1]
    assert [ahead(1, LAST), ahead(3, LAST - 1), ahead(LAST, 1), ahead(7, 7)] == [1, 4, -1, 0]


@given(st.integers(1, LAST), st.integers(0, 2000))
def test_ahead_counts_the_steps_of_after(start: int, steps: int) -> None:
    sequence = start
    for _ in range(steps):
        sequence = after(sequence)
    assert (ahead(sequence, start), ahead(start, sequence)) == (steps, -steps)


def test_a_memory_is_kept_whole_and_is_only_for_its_server() -> None:
    known = Memory("opc.tcp://h:1", b"\x05\xff", b"n", 7, "f", 0.5, 5.0, LAST, 123, [3, 4])
    assert Memory.decode(known.encode(), known.place, "opc.tcp://h:1") == known
    assert Memory.decode(known.encode(), known.place, "opc.tcp://other:1") == Memory("opc.tcp://other:1")


def test_a_place_counts_only_in_its_own_subscription() -> None:
    known = Memory("s", subscription=8, sequence=3, clean_ns=20)
    found = Memory.decode(known.encode(), b"7 900 30", "s")
    assert (found.subscription, found.sequence, found.clean_ns) == (8, 0, 30)


@pytest.mark.parametrize("body", [None, b"", b"{}", b"[]", b'{"server": 1}', b"\xff", b'{"token": "zz", "nonce": ""}'])
def test_a_memory_that_can_not_be_read_is_none(body: bytes | None) -> None:
    assert Memory.decode(body, b"7 1 1", "opc.tcp://h:1") == Memory("opc.tcp://h:1")


def test_a_memory_has_a_bound() -> None:
    known = Memory("s", subscription=7, clean_ns=5, bad=list(range(MOST_BAD + 1)))
    found = Memory.decode(known.encode(), None, "s")
    assert (found.subscription, found.bad, found.clean_ns) == (0, [], 5)


def test_a_queue_covers_the_outage() -> None:
    assert [queue_size(60, 0.5), queue_size(60, 0.0), queue_size(3600, 0.001)] == [121, 1201, 10_000]


def test_a_server_takes_over_the_deadband_that_is_the_same_there() -> None:
    found = device()
    assert deadband(found, tag("deadband=0.5")) == Deadband(0.5)
    assert deadband(found, tag("deadband=0.5", scale=0.1)) == Deadband(0.5 / 0.1)
    assert deadband(found, tag("deadband=2%", low=-50.0, high=150.0)) == Deadband(0.02 * 200.0)
    for ours in ("", "on_change", "swinging_door=1", "deadband=0.5; heartbeat=60s", "deadband=2%; heartbeat=60s"):
        assert deadband(found, tag(ours), (0.0, 1.0)) is None
    assert deadband(found, tag("deadband=1", ValueType.STRING)) is None
    assert deadband(device(deadband="agent"), tag("deadband=0.5")) is None


def test_a_percentage_is_of_the_servers_range_unless_the_tag_has_another() -> None:
    found = device()
    assert deadband(found, tag("deadband=2%")) is None
    assert deadband(found, tag("deadband=2%"), (0.0, 50.0)) == Deadband(2.0, percent=True)
    assert deadband(found, tag("deadband=2%", low=0.0, high=50.0), (0.0, 50.0)) == Deadband(2.0, percent=True)
    # The same range, in the unit of the readings: 0.1 turns it round and makes it smaller.
    scaled = tag("deadband=2%", low=-5.0, high=0.0, scale=-0.1)
    assert deadband(found, scaled, (0.0, 50.0)) == Deadband(2.0, percent=True)
    assert of_readings(scaled, (0.0, 50.0)) == (-5.0, 0.0)
    # The server's would leave out what the tag list asks for.
    assert deadband(found, tag("deadband=2%", low=0.0, high=10.0), (0.0, 50.0)) == Deadband(0.02 * 10.0)


def test_limits_are_the_servers_or_the_products() -> None:
    assert Limits.stated("Some Server", 50, 0, None, 5000) == Limits(50, CHUNK, CHUNK, CHUNK)
    assert Limits.stated("Siemens AG S7-1200 OPC UA Server", 1000, 100, None, None) == Limits(
        S7_CHUNK, 100, S7_CHUNK, S7_CHUNK
    )


def test_a_browse_path_has_steps() -> None:
    found = NodeAddress.parse("nsu=urn:plant;path=/Objects/Furnace/2:A&/B&&C")
    assert found.steps == [(0, "Objects"), (None, "Furnace"), (2, "A/B&C")]
    assert NodeAddress.parse(found.text) == found
    for wrong in (
        "path=Objects/2:A",
        "path=/Objects",
        "path=/Objects//A",
        "path=/Objects/70000:A",
        "path=/Objects/a:b:c",
    ):
        with pytest.raises(ValueError, match="is not a browse path; write"):
            NodeAddress.parse(wrong)


def test_every_change_is_a_sampling_interval_of_0() -> None:
    assert (device(sampling="every change").sampling, device(sampling="50ms").sampling, device().sampling) == (
        0,
        0.05,
        1,
    )
    assert (device().patience, device(mode="poll").patience, device(outage="5s").patience) == (60, 0, 5)
