"""Virtual devices on every kind of line, read by clients that are not ours: mbpoll (libmodbus) and pymodbus."""

from __future__ import annotations

import asyncio
import re
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient, AsyncModbusUdpClient

from agent import config
from agent.address import ModbusAddress, ModbusTable, registers
from agent.model import Tag, ValueType
from simulators import certificate
from simulators.modbus_frames import SILENCE, Ascii, Asked, Frames, Mbap, NotModbus, Rtu
from simulators.modbus_image import Image
from simulators.modbus_place import Place
from simulators.modbus_pty import PtyServer
from simulators.modbus_server import ModbusServer, Server, UdpServer
from simulators.plant import Plant
from tests.peers.process import program
from tests.test_plant import DEMO, T0, naive_decode

HOST = "127.0.0.1"
MBPOLL_TABLES = {ModbusTable.CO: "0", ModbusTable.DI: "1", ModbusTable.IR: "3:hex", ModbusTable.HR: "4:hex"}


def images() -> tuple[dict[int, Image], Plant, dict[int, tuple[Tag, ...]]]:
    """Both presses of the demo as units 1 and 2 of one line."""
    found = config.load(DEMO)
    plant = Plant(found.tags, 11)
    tags = {device.unit: device.tags for device in found.devices if device.protocol == "modbus"}
    return {unit: Image(plant, f"press{unit}", each) for unit, each in tags.items()}, plant, tags


@asynccontextmanager
async def serving(server: Server) -> AsyncIterator[None]:
    await server.start()
    try:
        yield
    finally:
        await server.stop()


async def mbpoll(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        program("mbpoll"), "-1", "-0", "-o", "10", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    return output.decode()


def values(output: str) -> list[str]:
    """The lines `[100]: \t0x1F`: values in the order of their addresses."""
    return re.findall(r"^\[\d+\]:\s+(\S+)", output, re.MULTILINE)


async def mbpoll_reads_all(unit: int, tags: Sequence[Tag], plant: Plant, *where: str) -> None:
    for tag in tags:
        place = ModbusAddress.parse(tag.address)
        count = registers(tag.type, tag.length)
        wanted = ["-a", str(unit), "-r", str(place.number), "-c", str(count), "-t", MBPOLL_TABLES[place.table]]
        output = await mbpoll(*wanted, *where)
        found = values(output)
        assert len(found) == count, output
        raw = plant.raw(tag, T0)
        if place.table.bits:
            assert found == [str(int(bool(raw)))], tag
        elif place.bit is not None:
            assert int(found[0], 16) >> place.bit & 1 == raw, tag
        else:
            payload = struct.pack(f">{count}H", *(int(each, 16) for each in found))
            assert naive_decode(payload, tag.type, tag.order) == raw, tag


def some(tags: Sequence[Tag]) -> list[Tag]:
    """One tag of each table, type and order."""
    return list({(tag.address[:2], tag.type, tag.order, "." in tag.address): tag for tag in tags}.values())


async def test_mbpoll_reads_over_tcp_what_the_plant_says() -> None:
    units, plant, tags = images()
    server = ModbusServer(HOST, 0, units, lambda: T0)
    async with serving(server):
        for unit, each in tags.items():
            await mbpoll_reads_all(unit, some(each), plant, "-m", "tcp", "-p", str(server.port), HOST)
        assert "Target device failed to respond" in await mbpoll("-a", "9", "-r", "0", "-p", str(server.port), HOST)


async def test_mbpoll_reads_over_rtu_what_the_plant_says(tmp_path: Path) -> None:
    units, plant, tags = images()
    port = tmp_path / "bus" / "ttyA"
    server = PtyServer(port, units, lambda: T0)
    async with serving(server):
        line = ("-m", "rtu", "-b", "19200", "-P", "none", str(port))
        for unit, each in tags.items():
            await mbpoll_reads_all(unit, some(each), plant, *line)
        # libmodbus swaps the registers of a float; `-B` gives the high one first, which is our ABCD.
        temp = next(tag for tag in tags[1] if tag.type is ValueType.FLOAT32 and tag.order == "ABCD")
        where = ModbusAddress.parse(temp.address)
        kind = MBPOLL_TABLES[where.table].replace("hex", "float")
        shown = values(await mbpoll("-a", "1", "-r", str(where.number), "-c", "1", "-t", kind, "-B", *line))
        assert shown == [f"{plant.raw(temp, T0):g}"]
        # A unit that is not on the line says nothing, and the next one is heard all the same.
        assert "Connection timed out" in await mbpoll("-a", "9", "-r", "0", "-o", "0.2", *line)
        await mbpoll_reads_all(1, some(tags[1])[:2], plant, *line)
    assert not port.is_symlink()


def test_a_certificate_is_made_once_and_its_key_is_secret(tmp_path: Path) -> None:
    first = certificate.make(tmp_path / "plant.pem")
    assert certificate.make(tmp_path / "plant.pem") == first
    assert first[1].stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("scheme", ["tcp", "udp", "rtu+tcp", "ascii+tcp"])
async def test_pymodbus_reads_what_the_plant_says(scheme: str) -> None:
    units, plant, tags = images()
    server = Place(scheme, HOST, 0).server(units, lambda: T0, ssl.create_default_context)
    assert isinstance(server, ModbusServer | UdpServer)
    async with serving(server):
        client: Any
        options: dict[str, Any] = {"port": server.port, "timeout": 20, "retries": 0, "reconnect_delay": 0}
        if scheme == "udp":
            client = AsyncModbusUdpClient(HOST, **options)
        else:
            framer = {"tcp": FramerType.SOCKET, "rtu+tcp": FramerType.RTU, "ascii+tcp": FramerType.ASCII}[scheme]
            client = AsyncModbusTcpClient(HOST, framer=framer, **options)
        assert await client.connect()
        for unit, each in tags.items():
            for tag in some(each):
                place, count = ModbusAddress.parse(tag.address), registers(tag.type, tag.length)
                call = {
                    ModbusTable.CO: client.read_coils,
                    ModbusTable.DI: client.read_discrete_inputs,
                    ModbusTable.HR: client.read_holding_registers,
                    ModbusTable.IR: client.read_input_registers,
                }[place.table]
                response = await call(place.number, count=count, device_id=unit)
                assert not response.isError(), (tag, response)
                if not place.table.bits and place.bit is None:
                    payload = struct.pack(f">{count}H", *response.registers)
                    assert naive_decode(payload, tag.type, tag.order) == plant.raw(tag, T0), tag
        client.close()


async def test_tls_shows_a_certificate_and_answers_modbus(tmp_path: Path) -> None:
    # pymodbus frames TLS without a header, against MB-TCP-Security V2.1: plain bytes are asked here.
    units, plant, tags = images()
    made = certificate.make(tmp_path / "plant.pem")
    server = Place("tls", HOST, 0).server(units, lambda: T0, lambda: certificate.context(*made))
    assert isinstance(server, ModbusServer)
    async with serving(server):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection(HOST, server.port, ssl=ssl.create_default_context())
        trust = ssl.create_default_context(cafile=made[0])
        reader, writer = await asyncio.open_connection(HOST, server.port, ssl=trust)
        temp = next(tag for tag in tags[1] if tag.type is ValueType.FLOAT32)
        place = ModbusAddress.parse(temp.address)
        writer.write(struct.pack(">HHHBBHH", 7, 0, 6, 1, 3 if place.table is ModbusTable.HR else 4, place.number, 2))
        transaction, _, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
        answer = await reader.readexactly(length - 1)
        assert (transaction, unit, answer[1]) == (7, 1, 4)
        assert naive_decode(answer[2:], temp.type, temp.order) == plant.raw(temp, T0)
        writer.close()


async def test_pymodbus_is_told_who_the_device_is() -> None:
    units, _, tags = images()
    server = ModbusServer(HOST, 0, units, lambda: T0)
    async with serving(server):
        client = AsyncModbusTcpClient(HOST, port=server.port, timeout=20, retries=0, reconnect_delay=0)
        assert await client.connect()
        found: dict[int, bytes] = {}
        first, more = 0, True
        while more:
            response: Any = await client.read_device_information(read_code=3, object_id=first, device_id=1)
            found |= response.information
            more, first = response.more_follows == 0xFF, response.next_object_id
        assert found == units[1].identity
        one: Any = await client.read_device_information(read_code=4, object_id=0x81, device_id=1)
        assert one.information == {0x81: f"{len(tags[1])} tags".encode()}
        client.close()


ASK = bytes.fromhex("0103000000010000")[:6]
"""Unit 1, one holding register from 0; its frames are worked out by hand from the specification."""


@pytest.mark.parametrize(
    ("frames", "wire", "answer"),
    [
        (Rtu, "010300000001840a", "010302000a3843"),
        (Ascii, b":010300000001FB\r\n".hex(), b":010302000AF0\r\n".hex()),
        (Mbap, "000700000006" + "010300000001", "000700000005" + "010302000a"),
    ],
)
def test_frames_of_known_bytes(frames: type[Frames], wire: str, answer: str) -> None:
    request = bytes.fromhex(wire)
    for cut in range(len(request)):
        line = frames()
        assert list(line.feed(request[:cut], 1.0)) == []
        (asked,) = line.feed(request[cut:] + request[: len(request) // 2], 1.0)
        assert (asked.unit, asked.pdu) == (1, ASK[1:])
        assert line.wrap(asked, bytes.fromhex("0302000a")).hex() == answer


def test_noise_before_a_request_is_skipped() -> None:
    request = bytes.fromhex("010300000001840a")
    for noise in (b"\x00", b"\x01\x03", b"\xff" * 7, request[:-1] + b"\x00"):
        assert [asked.pdu for asked in Rtu().feed(noise + request + request, 1.0)] == [ASK[1:]] * 2, noise.hex()
    line = Rtu()
    assert list(line.feed(request[:5], 1.0)) == []
    assert list(line.feed(request, 1.0 + 2 * SILENCE)) == [Asked(1, ASK[1:])]
    assert list(Rtu().feed(bytes.fromhex("0141c010"), 1.0)) == [Asked(1, b"\x41")]  # a function that has no length
    assert [asked.pdu for asked in Ascii().feed(b"x:01:01zz\r\n:010300000001FB\r\n", 1.0)] == [ASK[1:]]
    assert list(Ascii().feed(b":010300000001FC\r\n", 1.0)) == []
    with pytest.raises(NotModbus):
        list(Mbap().feed(b"GET / HTTP/1.1\r\n", 1.0))


async def test_a_path_that_exists_is_left_alone(tmp_path: Path) -> None:
    units, _, _ = images()
    real, stale = tmp_path / "ttyS0", tmp_path / "ttyS1"
    real.write_text("a port")
    with pytest.raises(OSError, match="exists already"):
        await PtyServer(real, units).start()
    assert real.read_text() == "a port"
    stale.symlink_to(tmp_path / "gone")
    async with serving(PtyServer(stale, units)):
        assert stale.exists()
