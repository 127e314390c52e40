"""Our transports against devices that others wrote: libmodbus (RTU, TCP), modbus-serial, pyModbusTCP, pymodbus."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pymodbus import FramerType
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice
from pyModbusTCP.server import ModbusServer as PyModbusTcpServer

from agent.collectors import collectors
from agent.errors import NotConnected
from agent.model import StatusCode, Tag, ValueType
from tests.bus import Recorder, device
from tests.peers.process import free_port
from tests.peers.serial_pair import SerialPair
from tests.peers.servers import HOLDING, LibmodbusRtuServer, LibmodbusServer, ModbusSerialServer


def peer_tags() -> list[Tag]:
    rows: list[tuple[str, str, str, str, int]] = []
    for number, (kind, order, _) in HOLDING.items():
        word, _, length = kind.partition("[")
        rows.append((f"h{number}", f"hr:{number}", word, order, int(length.strip("]") or 0)))
    rows += [("coil3", "co:3", "bool", "ABCD", 0), ("input3", "di:3", "bool", "ABCD", 0)]
    rows += [("register7", "ir:7", "uint16", "ABCD", 0), ("beyond", "hr:5000", "uint16", "ABCD", 0)]
    return [
        Tag(at, "peer", name, address, ValueType(kind), name, order=order, length=length)
        for at, (name, address, kind, order, length) in enumerate(rows)
    ]


async def read(url: str, tags: Sequence[Tag], **options: Any) -> Recorder:
    """Connects, polls three times, closes; what was read."""
    inlet = Recorder(tags)
    (collector,) = collectors([device(1, tags, url, poll="20ms", timeout="20s", late="100ms", **options)], inlet)
    try:
        await collector.connect()
        for _ in range(3):
            await collector.read()
    finally:
        await collector.close()
    return inlet


def check(inlet: Recorder) -> None:
    latest = {inlet._tags[index].name: (value, quality) for index, _, value, quality in inlet.buffer.latest()}
    for number, (_, _, wanted) in HOLDING.items():
        assert latest[f"h{number}"] == (wanted, 0), number
    assert [latest[name][0] for name in ("coil3", "input3", "register7")] == [True, False, 1007]
    assert latest["beyond"] == (None, StatusCode.BAD_NODE_ID_UNKNOWN)


async def test_libmodbus_over_rtu_on_a_serial_port(tmp_path: Path) -> None:
    with SerialPair() as pair, LibmodbusRtuServer(tmp_path, pair.other):
        url = f"rtu://{pair.one}?baudrate=115200&parity=N&stopbits=1"
        check(await read(url, peer_tags()))
        # Nobody else gets the port while we have it, and we say so of others.
        with pytest.raises(NotConnected, match="no connection to /dev/pts"), held(pair.one):
            await read(url, peer_tags())


@contextlib.contextmanager
def held(path: str) -> Iterator[None]:
    import serial

    with serial.Serial(path, exclusive=True):
        yield


async def test_libmodbus_over_tcp(libmodbus_server: LibmodbusServer) -> None:
    check(await read(libmodbus_server.url, peer_tags()))


async def test_modbus_serial_over_tcp(modbus_serial_server: ModbusSerialServer) -> None:
    check(await read(modbus_serial_server.url, peer_tags(), pipeline=4))


async def test_libmodbus_behind_a_gateway_that_hides_the_serial_line(tmp_path: Path) -> None:
    with SerialPair() as pair, LibmodbusRtuServer(tmp_path, pair.other):
        async with gateway(pair.one) as port:
            check(await read(f"rtu+tcp://127.0.0.1:{port}", peer_tags()))


@contextlib.asynccontextmanager
async def gateway(path: str) -> AsyncIterator[int]:
    """A serial device server in its plainest form: bytes from one client to the port, and from the port to it."""
    import serial

    loop = asyncio.get_running_loop()
    with serial.Serial(path, 115200, timeout=0) as port:
        clients: list[asyncio.StreamWriter] = []

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            clients.append(writer)
            while chunk := await reader.read(100):
                port.write(chunk)
            writer.close()

        loop.add_reader(port.fileno(), lambda: clients[-1].write(port.read(1000)))
        async with await asyncio.start_server(client, "127.0.0.1", 0) as server:
            yield server.sockets[0].getsockname()[1]
            for each in clients:
                each.close()
                await each.wait_closed()
        loop.remove_reader(port.fileno())


def simple_tags() -> list[Tag]:
    return [Tag(at, "peer", f"r{at}", f"hr:{at}", ValueType.UINT16, f"r{at}") for at in range(100)]


def check_simple(inlet: Recorder) -> None:
    assert [(value, quality) for _, _, value, quality in inlet.buffer.latest()] == [(3 * at, 0) for at in range(100)]


async def test_pymodbustcp() -> None:
    port = free_port()
    server = PyModbusTcpServer("127.0.0.1", port, no_block=True)
    server.start()
    try:
        server.data_bank.set_holding_registers(0, [3 * at for at in range(100)])
        check_simple(await read(f"tcp://127.0.0.1:{port}", simple_tags()))
    finally:
        server.stop()


@pytest.mark.parametrize(("framer", "scheme"), [(FramerType.ASCII, "ascii+tcp"), (FramerType.RTU, "rtu+tcp")])
async def test_pymodbus_with_serial_frames_over_tcp(framer: FramerType, scheme: str) -> None:
    device = SimDevice(1, simdata=[SimData(0, values=[3 * at for at in range(100)], datatype=DataType.REGISTERS)])
    server: Any = ModbusTcpServer([device], framer=framer, address=("127.0.0.1", 0))
    await server.serve_forever(background=True)
    try:
        port = server.transport.sockets[0].getsockname()[1]
        check_simple(await read(f"{scheme}://127.0.0.1:{port}", simple_tags()))
    finally:
        await server.shutdown()


def answer(request: bytes) -> bytes:
    transaction, _, _, unit, function, first, count = struct.unpack(">HHHBBHH", request)
    values = b"".join(struct.pack(">H", 3 * (first + at)) for at in range(count))
    return struct.pack(">HHHBBB", transaction, 0, len(values) + 3, unit, function, len(values)) + values


async def test_udp() -> None:
    class Server(asyncio.DatagramProtocol):
        asked = 0

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.asked += 1
            if self.asked % 5 == 2:
                return  # the network loses one now and then
            self.transport.sendto(answer(data)[:-3] if self.asked % 5 == 4 else answer(data), addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, ("127.0.0.1", 0))
    try:
        port = transport.get_extra_info("sockname")[1]
        inlet = Recorder(simple_tags())
        (collector,) = collectors(
            [device(1, simple_tags(), f"udp://127.0.0.1:{port}", poll="10ms", timeout="200ms", tries=6)], inlet
        )
        await collector.connect()
        for _ in range(10):
            await collector.read()
        await collector.close()
        check_simple(inlet)
        assert collector.counters["timeouts"] > 0
        assert collector.counters["discarded_short"] > 0
    finally:
        transport.close()


def certificate(home: Path, name: str, issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None) -> Any:
    """(certificate, key), also as NAME.pem and NAME.key; its own issuer where there is none."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(name), *([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if name == "plc" else [])]
            ),
            critical=False,
        )
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    (home / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (home / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made, key


async def test_tls_with_a_certificate_on_both_sides(tmp_path: Path) -> None:
    ca = certificate(tmp_path, "ca", None)
    certificate(tmp_path, "plc", ca)
    certificate(tmp_path, "agent", ca)
    certificate(tmp_path, "stranger", None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "plc.pem", tmp_path / "plc.key")
    context.load_verify_locations(tmp_path / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    class Server(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(answer(data))

    loop = asyncio.get_running_loop()
    async with await loop.create_server(Server, "127.0.0.1", 0, ssl=context) as server:
        url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        files = {"cert": str(tmp_path / "agent.pem"), "key": str(tmp_path / "agent.key")}
        check_simple(await read(url, simple_tags(), ca=str(tmp_path / "ca.pem"), **files))
        with pytest.raises(NotConnected, match="certificate verify failed"):
            await read(url, simple_tags(), ca=str(tmp_path / "stranger.pem"), **files)
        with pytest.raises(NotConnected, match="certificate verify failed"):
            await read(url, simple_tags(), ca=str(tmp_path / "ca.pem"), server_name="other", **files)
        with pytest.raises(NotConnected):
            await read(url, simple_tags(), ca=str(tmp_path / "ca.pem"))  # no certificate of our own
