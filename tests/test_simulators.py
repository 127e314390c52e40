"""The simulated devices, asked by clients that this project did not write: pymodbus and asyncua."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.uaerrors import UaStatusCodeError
from pymodbus.client import AsyncModbusTcpClient

from agent import config
from agent.address import ModbusAddress, ModbusTable, NodeAddress, registers
from agent.config import Config
from agent.errors import ConfigError
from agent.model import Tag, Value, ValueType
from simulators.modbus_image import Image
from simulators.modbus_server import ModbusServer
from simulators.opcua_access import Access
from simulators.opcua_server import OpcUaServer
from simulators.oracle import Oracle
from simulators.plant import Plant
from simulators.run import PortTaken, Simulation, simulate
from tests.peers.process import free_port
from tests.test_plant import DEMO, T0, naive_decode

STEP = 250_000_000
HOST = "127.0.0.1"


def demo(**urls: str) -> Config:
    """The demo's config with every device at a free port, or at the URL given for it."""
    found = config.load(DEMO)
    devices = []
    for device in found.devices:
        scheme = device.url.partition("://")[0]
        devices.append(device.model_copy(update={"url": urls.get(device.name, f"{scheme}://{HOST}:{free_port()}")}))
    return found.model_copy(update={"devices": tuple(devices)})


async def until(condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@asynccontextmanager
async def modbus(clock: Callable[[], int]) -> AsyncIterator[tuple[ModbusServer, Plant, Config]]:
    """Both presses of the demo at one port, as units 1 and 2 behind a gateway."""
    found = demo()
    plant = Plant(found.tags, 11)
    presses = [device for device in found.devices if device.protocol == "modbus"]
    server = ModbusServer(HOST, 0, {press.unit: Image(plant, press.name, press.tags) for press in presses}, clock)
    await server.start()
    try:
        yield server, plant, found
    finally:
        await server.stop()


@asynccontextmanager
async def modbus_client(server: ModbusServer) -> AsyncIterator[AsyncModbusTcpClient]:
    client = AsyncModbusTcpClient(HOST, port=server.port, timeout=20, retries=0, reconnect_delay=0)
    assert await client.connect()
    try:
        yield client
    finally:
        client.close()


async def read(client: AsyncModbusTcpClient, unit: int, tag: Tag) -> Value:
    """What pymodbus sees at a tag's address, decoded by the test's own means."""
    address = ModbusAddress.parse(tag.address)
    count = registers(tag.type, tag.length)
    call: Any = {
        ModbusTable.CO: client.read_coils,
        ModbusTable.DI: client.read_discrete_inputs,
        ModbusTable.HR: client.read_holding_registers,
        ModbusTable.IR: client.read_input_registers,
    }[address.table]
    response = await call(address.number, count=count, device_id=unit)
    assert not response.isError(), (tag, response)
    if address.table.bits:
        return bool(response.bits[0])
    if address.bit is not None:
        return bool(response.registers[0] >> address.bit & 1)
    return naive_decode(struct.pack(f">{count}H", *response.registers), tag.type, tag.order)


async def test_every_tag_of_both_presses_reads_as_the_plant_says() -> None:
    now = T0
    async with modbus(lambda: now) as (server, plant, found), modbus_client(server) as client:
        for now in (T0, T0 + 7 * STEP, T0 - 40 * STEP):  # backwards as well: a clock may be set
            for press in found.devices[:2]:
                assert press.protocol == "modbus"
                for tag in press.tags:
                    seen = await read(client, press.unit, tag)
                    assert (type(seen), seen) == (type(plant.raw(tag, now)), plant.raw(tag, now)), tag
        assert server.served.requests == 3 * len([tag for tag in found.tags if tag.device != "furnace"])
        assert server.served.exceptions == 0
        await until(lambda: server.served.clients == 1)
    assert server.served.clients == 0


async def test_a_window_may_begin_and_end_within_a_value() -> None:
    found = demo()
    plant = Plant(found.tags, 11)
    image = Image(plant, "press1", found.devices[0].tags)
    whole = image.read(ModbusTable.IR, 100, 30, T0)
    assert whole is not None
    for first in range(100, 130):
        for count in (1, 2, 3, 5):
            if first + count <= 130:
                at = 2 * (first - 100)
                assert image.read(ModbusTable.IR, first, count, T0) == whole[at : at + 2 * count]
    bits = image.read(ModbusTable.DI, 10, 12, T0)
    one = [image.read(ModbusTable.DI, 10 + at, 1, T0) for at in range(12)]
    assert bits is not None
    assert one == [bytes([bits[at // 8] >> at % 8 & 1]) for at in range(12)]


async def test_one_instant_per_request() -> None:
    calls = 0

    def clock() -> int:
        nonlocal calls
        calls += 1
        return T0 + calls * STEP

    async with modbus(clock) as (server, plant, found), modbus_client(server) as client:
        response = await client.read_input_registers(100, count=36, device_id=1)
        assert calls == 1
        payload = struct.pack(">36H", *response.registers)
        for tag in found.devices[0].tags:
            address = ModbusAddress.parse(tag.address)
            at = 2 * (address.number - 100)
            if address.table is ModbusTable.IR and 0 <= at < 70:
                width = 2 * registers(tag.type, tag.length)
                assert naive_decode(payload[at : at + width], tag.type, tag.order) == plant.raw(tag, T0 + STEP)


async def test_overlapping_tags_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    tags = [
        Tag(at, "d", f"t{at}", address, kind, f"id{at}")
        for at, (address, kind) in enumerate(
            [
                ("hr:0", ValueType.FLOAT32),
                ("hr:1", ValueType.INT16),
                ("hr:5.1", ValueType.BOOL),
                ("hr:5.2", ValueType.BOOL),
            ]
        )
    ]
    Image(Plant(tags, 1), "d", tags)
    record = next(record for record in caplog.records if getattr(record, "event", "") == "tags_overlap")
    assert (record.device, record.tags) == ("d", 1)  # type: ignore[attr-defined]


async def ask(port: int, frame: bytes) -> bytes:
    """The bytes that come back for `frame`, until the server closes or 12 bytes are there."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(frame)
        async with asyncio.timeout(20):
            received = b""
            while len(received) < 9 and (more := await reader.read(260)):
                received += more
            return received
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def frame(pdu: bytes, unit: int = 1, transaction: int = 7) -> bytes:
    return struct.pack(">HHHB", transaction, 0, len(pdu) + 1, unit) + pdu


@pytest.mark.parametrize(
    ("pdu", "unit", "code"),
    [
        (struct.pack(">BHH", 3, 0, 1), 9, 0x0B),
        (struct.pack(">BHH", 6, 0, 1), 1, 0x01),
        (struct.pack(">BBB", 43, 14, 1), 1, 0x03),
        (struct.pack(">BBBB", 43, 13, 1, 0), 1, 0x01),
        (struct.pack(">BBBB", 43, 14, 5, 0), 1, 0x03),
        (struct.pack(">BBBB", 43, 14, 4, 99), 1, 0x02),
        (struct.pack(">BHH", 3, 0, 0), 1, 0x03),
        (struct.pack(">BHH", 3, 0, 126), 1, 0x03),
        (struct.pack(">BHH", 1, 0, 2001), 1, 0x03),
        (struct.pack(">BH", 3, 0), 1, 0x03),
        (struct.pack(">BHHB", 3, 0, 1, 0), 1, 0x03),
        (struct.pack(">BHH", 4, 0, 1), 1, 0x02),
        (struct.pack(">BHH", 3, 0, 125), 1, 0x02),
        (struct.pack(">BHH", 3, 65535, 2), 1, 0x02),
        (struct.pack(">BHH", 1, 7, 2), 1, 0x02),
    ],
)
async def test_exceptions(pdu: bytes, unit: int, code: int) -> None:
    async with modbus(lambda: T0) as (server, _, _):
        response = await ask(server.port, frame(pdu, unit))
        assert response == frame(bytes([pdu[0] | 0x80, code]), unit)
        assert server.served.exceptions == 1


@pytest.mark.parametrize(
    "wrong",
    [
        struct.pack(">HHHB", 1, 0, 255, 1) + bytes(254),
        struct.pack(">HHHB", 1, 0, 1, 1),
        struct.pack(">HHHB", 1, 1, 6, 1) + struct.pack(">BHH", 3, 0, 1),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_modbus_closes_the_connection(wrong: bytes) -> None:
    async with modbus(lambda: T0) as (server, _, _):
        assert await ask(server.port, wrong) == b""
        assert await ask(server.port, frame(struct.pack(">BHH", 3, 0, 1))) != b""


async def test_frames_arrive_in_any_pieces() -> None:
    async with modbus(lambda: T0) as (server, _, _):
        reader, writer = await asyncio.open_connection(HOST, server.port)
        request = struct.pack(">BHH", 3, 0, 2)
        both = frame(request, transaction=1) + frame(request, transaction=2)
        for at in range(len(both)):
            writer.write(both[at : at + 1])
            await writer.drain()
        writer.write(frame(request, transaction=3) + frame(request, transaction=4))
        async with asyncio.timeout(20):
            answers = [await reader.readexactly(13) for _ in range(4)]
        assert [answer[:2] for answer in answers] == [bytes([0, n]) for n in (1, 2, 3, 4)]
        assert len({answer[2:] for answer in answers}) == 1
        writer.close()


def patient(url: str) -> Client:
    """A client that shares its loop with the server: its own watch over the line would not outlast a busy machine."""
    return Client(url, timeout=30, watchdog_intervall=30)


@asynccontextmanager
async def opcua(clock: Callable[[], int], *more: Tag) -> AsyncIterator[tuple[OpcUaServer, Plant, Config, Client]]:
    """The furnace of the demo (and `more` tags beside it), running, with a client that is connected."""
    found = demo()
    furnace = found.devices[2]
    plant = Plant((*found.tags, *more), 11)
    server = OpcUaServer(furnace.url, [("furnace", furnace.tags), ("beside", more)], plant, clock)
    await server.start()
    running = asyncio.create_task(server.run())
    client = patient(furnace.url)
    try:
        async with client:
            yield server, plant, found, client
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await server.stop()


def node_id(tag: Tag, spaces: list[str]) -> ua.NodeId:
    address = NodeAddress.parse(tag.address)
    space = address.namespace if isinstance(address.namespace, int) else spaces.index(address.namespace)
    return ua.NodeId(address.key, space)  # type: ignore[arg-type]


def nanoseconds(time: Any) -> int:
    return int((time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)) * 1000


VARIANTS = {
    "bool": "Boolean", "int8": "SByte", "int16": "Int16", "int32": "Int32", "int64": "Int64", "uint8": "Byte",
    "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64", "float32": "Float", "float64": "Double",
    "string": "String",
}  # fmt: skip


async def test_every_node_of_the_furnace_reads_as_the_plant_says() -> None:
    now = T0 + 123
    by_index = Tag(300, "beside", "seven", "ns=4;i=7", ValueType.INT16, "id/seven")
    async with opcua(lambda: now, by_index) as (server, plant, found, client):
        spaces = await client.get_namespace_array()
        for later in (0, 9 * STEP):
            now += later
            tags = (*found.devices[2].tags, by_index)
            await until(lambda limit=now: server._due[0][0] > limit)  # type: ignore[misc]
            for tag in tags:
                value = await client.get_node(node_id(tag, spaces)).read_data_value()
                assert value.Value is not None
                assert value.Value.VariantType.name == VARIANTS[tag.type.value]
                assert (type(value.Value.Value), value.Value.Value) == (type(plant.raw(tag, now)), plant.raw(tag, now))
                source_ns = nanoseconds(value.SourceTimestamp)
                assert source_ns % plant.step_ns(tag) == 0
                assert source_ns <= now
                assert plant.raw(tag, source_ns) == value.Value.Value
        folders = [(await child.read_browse_name()).Name for child in await client.nodes.objects.get_children()]
        assert {"furnace", "beside"} <= set(folders)
        with pytest.raises(UaStatusCodeError):
            await client.get_node(node_id(by_index, spaces)).write_value(ua.Variant(5, ua.VariantType.Int16))


async def test_nodes_have_a_range_and_a_unit() -> None:
    async with opcua(lambda: T0) as (_, _, found, client):
        spaces = await client.get_namespace_array()
        temp = found.devices[2].tags[0]
        parts = {
            str((await each.read_browse_name()).Name): each
            for each in await client.get_node(node_id(temp, spaces)).get_properties()
        }
        span, unit = await parts["EURange"].read_value(), await parts["EngineeringUnits"].read_value()
        assert (span.Low, span.High) == (600, 1250)
        assert (unit.DisplayName.Text, unit.UnitId) == ("°C", 4408652)  # the example of OPC 10000-8, 5.6.3.3


async def test_only_its_user_comes_in() -> None:
    tag = Tag(0, "oven", "x", "nsu=urn:x;s=x", ValueType.INT16, "id/x")
    server = OpcUaServer(
        f"opc.tcp://{HOST}:{free_port()}", [("oven", [tag])], Plant([tag], 1), access=Access(users={"reader": "secret"})
    )
    await server.start()
    try:
        for name, password, fits in (("reader", "secret", True), ("reader", "wrong", False), (None, "", False)):
            client = patient(server.url)
            if name is not None:
                client.set_user(name)
                client.set_password(password)
            if fits:
                async with client:
                    assert await client.get_namespace_array()
            else:
                with pytest.raises(UaStatusCodeError):
                    await client.connect()
                await asyncio.gather(client.disconnect(), return_exceptions=True)
    finally:
        await server.stop()


class Seen:
    """What a subscription brought, per node."""

    def __init__(self) -> None:
        self.values: dict[Any, list[tuple[int, Value]]] = {}

    def datachange_notification(self, node: Any, value: Value, event: Any) -> None:
        source_ns = nanoseconds(event.monitored_item.Value.SourceTimestamp)
        self.values.setdefault(node.nodeid, []).append((source_ns, value))


async def test_a_late_server_leaves_no_step_out() -> None:
    now = T0
    async with opcua(lambda: now) as (server, plant, found, client):
        spaces = await client.get_namespace_array()
        tags = [tag for tag in found.devices[2].tags if "Zone1" in tag.name or tag.type is ValueType.STRING]
        seen = Seen()
        subscription = await client.create_subscription(50, seen)
        nodes = [client.get_node(node_id(tag, spaces)) for tag in tags]
        await subscription.subscribe_data_change(nodes, queuesize=1000)
        await until(lambda: len(seen.values) == len(nodes))
        now += 40 * STEP  # ten seconds of a stopped process
        oracle = Oracle(plant, found)
        wanted = {node_id(tag, spaces): [T0, *oracle.expected_changes(tag, T0, now + 1)] for tag in tags}
        await until(lambda: all(len(seen.values[node]) >= len(times) for node, times in wanted.items()))
        for tag in tags:
            node = node_id(tag, spaces)
            step = plant.step_ns(tag)
            assert [time_ns for time_ns, _ in seen.values[node]] == [T0 - T0 % step, *wanted[node][1:]]
            assert not any(oracle.wrong(tag, time_ns, plant.value(tag, time_ns), 0) for time_ns, _ in seen.values[node])
            assert [value for _, value in seen.values[node]] == [plant.raw(tag, at) for at, _ in seen.values[node]]
        assert server.changes > sum(len(times) for times in wanted.values())
        await subscription.delete()


async def test_simulate_serves_all_devices_and_stops_at_once() -> None:
    found = demo()
    before = asyncio.all_tasks()
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(simulate(found, seed=5, stop=stop, ready=ready.set))
    async with asyncio.timeout(20):
        await ready.wait()
    plant, oracle = Plant(found.tags, 5), Oracle(Plant(found.tags, 5), found)

    client = AsyncModbusTcpClient(HOST, port=int(found.devices[1].url.rpartition(":")[2]), timeout=20, retries=0)
    assert await client.connect()
    for tag in found.devices[1].tags[:20]:
        asked = time.time_ns()
        raw = await read(client, 2, tag)
        value = float(raw) * (tag.scale or 1) + (tag.offset or 0) if tag.scaled else raw  # type: ignore[arg-type]
        moments = range(asked, time.time_ns() + 1, 20_000_000)
        assert not all(oracle.wrong(tag, moment, value, 0) for moment in moments), tag
    opc = patient(found.devices[2].url)
    await opc.connect()
    spaces = await opc.get_namespace_array()
    seen = Seen()
    subscription = await opc.create_subscription(100, seen)
    temp = found.devices[2].tags[0]
    await subscription.subscribe_data_change([opc.get_node(node_id(temp, spaces))], queuesize=100)
    await until(lambda: len(seen.values.get(node_id(temp, spaces), ())) >= 4)
    times = [time_ns for time_ns, _ in seen.values[node_id(temp, spaces)]]
    assert times[1:-1] == oracle.expected_changes(temp, times[0], times[-1])
    assert all(plant.value(temp, time_ns) == value for time_ns, value in seen.values[node_id(temp, spaces)])

    stop.set()  # with both clients still connected: it waits for neither
    async with asyncio.timeout(20):
        await running
    client.close()
    await asyncio.gather(opc.disconnect(), return_exceptions=True)
    for device in found.devices:
        with socket.create_server((HOST, int(device.url.rpartition(":")[2]))):
            pass  # the port is free again
    await until(lambda: asyncio.all_tasks() <= before)


@pytest.mark.parametrize("name", ["press2", "furnace"])
async def test_a_taken_port_is_named(name: str) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        scheme = "opc.tcp" if name == "furnace" else "tcp"
        found = demo(**{name: f"{scheme}://{HOST}:{port}"})
        with pytest.raises(PortTaken, match=f"{name}: port {port} of 127.0.0.1 is taken"):
            await simulate(found, seed=1, stop=asyncio.Event(), ready=lambda: None)
    with socket.create_server((HOST, int(found.devices[0].url.rpartition(":")[2]))):
        pass  # what had started is stopped


def test_devices_elsewhere_are_refused() -> None:
    found = demo(press1="tcp://192.168.1.9:502", furnace="opc.tcp://plc.example:4840")
    with pytest.raises(ConfigError) as caught:
        Simulation(found, 1)
    assert [problem.field for problem in caught.value.problems] == ["device[0].url", "device[2].url"]
    assert "192.168.1.9 is not this machine" in str(caught.value)
    assert caught.value.problems[0].line
    assert "opc.tcp://127.0.0.1:4840" in caught.value.problems[1].hint


async def test_stop_before_ready() -> None:
    stop = asyncio.Event()
    stop.set()
    async with asyncio.timeout(40):
        await simulate(demo(), seed=1, stop=stop, ready=lambda: None)
