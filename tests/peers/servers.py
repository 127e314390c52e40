"""Device servers made with other people's libraries, and the values they serve.

Both Modbus servers have the same 200 items of each table:

    co:N  N % 3 == 0        hr:0  float32 ABCD     hr:8   uint16, grows with each holding register request
    di:N  N % 3 != 0        hr:2  float32 DCBA     hr:9   bits: 1 and 3 are set, the others not
    ir:N  1000 + N          hr:4  float32 BADC     hr:10  uint64 ABCD     hr:16  int16
                            hr:6  float32 CDAB     hr:14  int32 ABCD      hr:17  string[8]

The OPC UA server has `nsu=urn:headrace:test;s=NAME` for each name in OPCUA_VALUES, besides:

    Counter  Int32: 0, 1, 2, ... one every 100 ms; its source times are exactly 100 ms apart
    Ramp     Double, the same, with an EURange of 0 to 200; Bare without one
    Bad      Double without a value and with the status OPCUA_BAD_STATUS

The second OPC UA server has Counter, Fast (the same every 10 ms), Ramp and Still (never changes).
"""

from __future__ import annotations

import math
import struct
import sys
from pathlib import Path
from typing import Any

from tests.peers.process import Peer, PeerMissing, program

HERE = Path(__file__).parent
NODE = HERE / "node"
ASYNC_OPCUA_SERVER = HERE.parent.parent / "target" / "peers" / "opcua" / "release" / "opcua-server"
LIBMODBUS_SERVER = HERE.parent.parent / "target" / "peers" / "libmodbus_server"

FLOAT32: float = struct.unpack(">f", b"\x44\x9a\x52\x25")[0]
"""1234.567 as a float32: what hr:0, hr:2, hr:4 and hr:6 hold, each in its order, and the OPC UA node Float."""

HOLDING: dict[int, tuple[str, str, bool | int | float | str]] = {
    0: ("float32", "ABCD", FLOAT32),
    2: ("float32", "DCBA", FLOAT32),
    4: ("float32", "BADC", FLOAT32),
    6: ("float32", "CDAB", FLOAT32),
    10: ("uint64", "ABCD", 2**53 + 1),
    14: ("int32", "ABCD", -123456),
    16: ("int16", "ABCD", -2),
    17: ("string[8]", "ABCD", "press-7"),
}
"""The constant holding registers: number -> (type, order, value)."""

COUNTER = 8
"""The holding register that grows by one with each request, and wraps at 65,536."""

OPCUA_NAMESPACE = "urn:headrace:test"
OPCUA_VALUES: dict[str, tuple[str, bool | int | float | str | list[Any]]] = {
    "Float": ("float32", FLOAT32),
    "Double": ("float64", math.pi),
    "Boolean": ("bool", True),
    "String": ("string", "press 7 · 压力机"),
    "UInt16": ("uint16", 65535),
    "Int64": ("int64", -(2**53) - 1),
    "UInt64": ("uint64", 2**64 - 1),
    "ByteString": ("bytes", "AP/+"),
    "Bools": ("bool[]", [True, False, True]),
    "Floats": ("float32[]", [FLOAT32, -0.5]),
    "Int16s": ("int16[]", [-32768, 0, 32767]),
    "Bytes": ("uint8[]", [0, 255]),
    "Strings": ("string[]", ["press 7 · 压力机", ""]),
    "ByteStrings": ("bytes[]", ["/w==", ""]),
    "None": ("float64[]", []),
}
"""The constant OPC UA nodes: name -> (type, value as JSON has it)."""

OPCUA_BAD_STATUS = 0x808C0000
"""BadSensorFailure."""


class Device(Peer):
    """A server that prints "ready PORT" once it listens."""

    def ready(self) -> bool:
        return f"ready {self.port}\n".encode() in self.log.read_bytes()


class LibmodbusServer(Device):
    """A C program with libmodbus; `url` is `tcp://127.0.0.1:PORT`."""

    scheme = "tcp"

    def command(self) -> list[str]:
        if not LIBMODBUS_SERVER.exists():
            raise PeerMissing("the libmodbus server")
        return [str(LIBMODBUS_SERVER), str(self.port)]


class LibmodbusRtuServer(Device):
    """The same program as an RTU device, unit 1, at the serial port `device`."""

    scheme = "rtu"

    def __init__(self, home: Path, device: str) -> None:
        super().__init__(home, 1)
        self.device = device

    def command(self) -> list[str]:
        if not LIBMODBUS_SERVER.exists():
            raise PeerMissing("the libmodbus server")
        return [str(LIBMODBUS_SERVER), self.device]

    def ready(self) -> bool:
        return b"ready /" in self.log.read_bytes()


class ModbusSerialServer(Device):
    """A Node.js program with modbus-serial; `url` is `tcp://127.0.0.1:PORT`."""

    scheme = "tcp"

    def command(self) -> list[str]:
        return [*_node("modbus-serial", "modbus_server.js"), str(self.port)]


class NodeOpcUaServer(Device):
    """A Node.js program with node-opcua, security policy None; `url` is `opc.tcp://127.0.0.1:PORT`.

    SIGUSR2: it forgets every subscription. SIGHUP: it closes every session as timed out. Its ServiceLevel is the number
    in the file HOME/level, 255 without one.
    """

    scheme = "opc.tcp"
    options: tuple[str, ...] = ()
    """`no-subscriptions`: it has no such service. `limited`: 5 items a subscription and 3 a call, queues of 100 values,
    sampled every 500 ms at the fastest. `history`, `history:PAGE`: the counter has one, and one answer
    PAGE values of it at most. `mirror:MS`: the counter was 0 at that time. `secure`: every current policy,
    users reader/s3cret and any certificate; it is STORE/server.crt, server.pem. `secure-strict`: and only clients in
    STORE/pki/trusted/certs."""

    def command(self) -> list[str]:
        return [*_node("node-opcua", "opcua_server.js"), str(self.port), str(self.home), *self.options]


class AsyncOpcUaServer(Device):
    """A Rust program with async-opcua, security policy None; `url` is `opc.tcp://127.0.0.1:PORT`."""

    scheme = "opc.tcp"
    options: tuple[str, ...] = ()
    """`secure`: every current policy, users reader/s3cret and STORE/user.der; it is STORE/server.der, server.pem."""

    def command(self) -> list[str]:
        if not ASYNC_OPCUA_SERVER.exists():
            raise PeerMissing("the async-opcua server")
        return [str(ASYNC_OPCUA_SERVER), str(self.port), str(self.home), *self.options]


class AsyncuaServer(Device):
    """A Python program with asyncua: what its certificate is, and what it hides, is told by files."""

    scheme = "opc.tcp"

    def command(self) -> list[str]:
        return [sys.executable, str(HERE / "asyncua_server.py"), str(self.port), str(self.home)]


class AsyncuaPlant(Device):
    """A Python program with asyncua, security policy None: Counter with a history that outlives it, and structures
    (Machine, Limits)."""

    scheme = "opc.tcp"
    options: tuple[str, ...] = ()
    """The most values of its history that one answer has."""

    def command(self) -> list[str]:
        return [sys.executable, str(HERE / "asyncua_plant.py"), str(self.port), str(self.home), *self.options]


def _node(package: str, script: str) -> list[str]:
    if not (NODE / "node_modules" / package).is_dir():
        raise PeerMissing(f"the npm package {package}")
    return [program("node"), str(NODE / script)]
