"""Every peer starts, answers its own protocol, and is there again at the same port after a kill -9."""

from __future__ import annotations

import base64
import socket
import struct
import threading
from datetime import datetime, timedelta
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from asyncua.client.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.peers import servers
from tests.peers.brokers import Broker, Mosquitto, Nats
from tests.peers.process import Peer, PeerMissing, listens, program
from tests.peers.servers import LibmodbusServer, ModbusSerialServer, NodeOpcUaServer

SECONDS = 30.0


def ask_modbus(peer: Peer, function: int, number: int, count: int) -> bytes:
    """The PDU that answers one Modbus TCP request, over a socket of its own."""
    with socket.create_connection(("127.0.0.1", peer.port), timeout=SECONDS) as line, line.makefile("rb") as answers:
        line.sendall(struct.pack(">HHHBBHH", 7, 0, 6, 1, function, number, count))
        transaction, protocol, length, unit = struct.unpack(">HHHB", answers.read(7))
        assert (transaction, protocol, unit) == (7, 0, 1)
        return answers.read(length - 1)


def holding(peer: Peer, number: int, count: int) -> bytes:
    """The bytes of `count` holding registers."""
    answer = ask_modbus(peer, 3, number, count)
    assert answer[:2] == bytes([3, 2 * count])
    return answer[2:]


def send_through(broker: Broker, version: MQTTProtocolVersion, payload: bytes) -> bytes:
    """Subscribes, publishes `payload` with QoS 1, and returns what arrives."""
    arrived: list[bytes | bytearray] = []
    subscribed, done = threading.Event(), threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=version)

    def on_connect(*_: object) -> None:
        client.subscribe("headrace-test", qos=1)

    def on_message(_client: mqtt.Client, _: object, message: mqtt.MQTTMessage) -> None:
        arrived.append(message.payload)
        done.set()

    client.on_connect = on_connect
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = on_message
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        assert subscribed.wait(SECONDS), "no SUBACK"
        client.publish("headrace-test", payload, qos=1).wait_for_publish(SECONDS)
        assert done.wait(SECONDS), "what was published did not come back"
    finally:
        client.disconnect()
        client.loop_stop()
        # Else the client is in a cycle, and its sockets wait for the garbage collector.
        client.on_connect = client.on_subscribe = client.on_message = None
    return bytes(arrived[0])


@pytest.mark.parametrize("version", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
def test_mosquitto(mosquitto: Mosquitto, version: MQTTProtocolVersion) -> None:
    assert send_through(mosquitto, version, b"before") == b"before"
    mosquitto.kill()
    assert not listens(mosquitto.port)
    mosquitto.start()
    assert send_through(mosquitto, version, b"after") == b"after"


def test_mosquitto_without_a_store_and_with_settings(tmp_path: Path) -> None:
    with Mosquitto(tmp_path, persistence=False, settings=("max_packet_size 2000",)) as broker:
        assert send_through(broker, MQTTProtocolVersion.MQTTv5, b"small") == b"small"
        broker.stop()
        assert not list((tmp_path / "store").iterdir())


def test_nats(nats: Nats) -> None:
    assert send_through(nats, MQTTProtocolVersion.MQTTv311, b"before") == b"before"
    nats.kill()
    assert not listens(nats.port)
    nats.start()
    assert send_through(nats, MQTTProtocolVersion.MQTTv311, b"after") == b"after"


@pytest.fixture(params=["libmodbus_server", "modbus_serial_server"])
def modbus_server(request: pytest.FixtureRequest) -> LibmodbusServer | ModbusSerialServer:
    server = request.getfixturevalue(request.param)
    assert isinstance(server, LibmodbusServer | ModbusSerialServer)
    return server


def test_modbus_holding_registers(modbus_server: Peer) -> None:
    abcd = holding(modbus_server, 0, 2)
    assert struct.unpack(">f", abcd) == (servers.FLOAT32,)
    assert holding(modbus_server, 2, 2) == abcd[::-1]
    assert holding(modbus_server, 4, 2) == bytes([abcd[1], abcd[0], abcd[3], abcd[2]])
    assert holding(modbus_server, 6, 2) == abcd[2:] + abcd[:2]
    assert struct.unpack(">H", holding(modbus_server, 9, 1)) == (0b1010,)
    assert struct.unpack(">Qih", holding(modbus_server, 10, 7)) == tuple(
        servers.HOLDING[number][2] for number in (10, 14, 16)
    )
    assert holding(modbus_server, 17, 4).rstrip(b"\0").decode() == servers.HOLDING[17][2]


def test_modbus_other_tables(modbus_server: Peer) -> None:
    assert ask_modbus(modbus_server, 1, 0, 8) == bytes([1, 1, 0b0100_1001])
    assert ask_modbus(modbus_server, 2, 0, 8) == bytes([2, 1, 0b1011_0110])
    assert ask_modbus(modbus_server, 4, 8, 2) == struct.pack(">BBHH", 4, 4, 1008, 1009)


def test_modbus_counts_requests_and_refuses_what_it_has_not(modbus_server: Peer) -> None:
    counts = [struct.unpack(">H", holding(modbus_server, servers.COUNTER, 1))[0] for _ in range(3)]
    assert counts == [1, 2, 3]
    assert ask_modbus(modbus_server, 3, 199, 2) == bytes([0x83, 2])


def test_modbus_server_comes_back(modbus_server: Peer) -> None:
    holding(modbus_server, 0, 2)
    modbus_server.kill()
    assert not listens(modbus_server.port)
    modbus_server.start()
    holding(modbus_server, 0, 2)


def as_json(value: object) -> object:
    """Bytes as base64, alone or in an array."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return [as_json(each) for each in value] if isinstance(value, list) else value


async def test_node_opcua(node_opcua_server: NodeOpcUaServer) -> None:
    async with Client(node_opcua_server.url, timeout=30, watchdog_intervall=30) as client:
        namespace = await client.get_namespace_index(servers.OPCUA_NAMESPACE)

        async def read(name: str) -> tuple[object, int, datetime]:
            node = client.get_node(f"ns={namespace};s={name}")
            found = await node.read_data_value(raise_on_bad_status=False)
            assert found.Value is not None
            assert found.StatusCode is not None
            assert found.SourceTimestamp is not None
            return found.Value.Value, found.StatusCode.value, found.SourceTimestamp

        for name, (_, expected) in servers.OPCUA_VALUES.items():
            value, status, _ = await read(name)
            assert (as_json(value), status) == (expected, 0), name
        assert (await read("Bad"))[:2] == (None, servers.OPCUA_BAD_STATUS)

        changes: dict[int, datetime] = {}
        while len(changes) < 3:  # ends by the time-out of the test
            value, _, source_time = await read("Counter")
            assert isinstance(value, int)
            changes[value] = source_time
        first = min(changes)
        for value, source_time in changes.items():
            assert source_time - changes[first] == timedelta(milliseconds=100) * (value - first)


def test_node_opcua_comes_back(node_opcua_server: NodeOpcUaServer) -> None:
    node_opcua_server.kill()
    assert not listens(node_opcua_server.port)
    node_opcua_server.start()
    with socket.create_connection(("127.0.0.1", node_opcua_server.port), timeout=SECONDS) as line:
        url = node_opcua_server.url.encode()
        line.sendall(b"HELF" + struct.pack("<IIIIIII", 32 + len(url), 0, 65536, 65536, 0, 0, len(url)) + url)
        assert line.recv(4) == b"ACKF"


def test_a_missing_peer_says_what_to_type() -> None:
    with pytest.raises(PeerMissing, match="no-such-broker is missing: run `make peers`"):
        program("no-such-broker")
