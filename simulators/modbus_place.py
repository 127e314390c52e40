"""Where a Modbus device of a config is to be simulated, and the server for it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from simulators.loopback import loopback
from simulators.modbus_frames import Ascii, Frames, Mbap, Rtu
from simulators.modbus_image import Image
from simulators.modbus_pty import PtyServer
from simulators.modbus_server import ModbusServer, Server, UdpServer

_STREAMS: dict[str, tuple[Callable[[], Frames], int]] = {
    "tcp": (Mbap, 502),
    "tls": (Mbap, 802),
    "rtu+tcp": (Rtu, 502),
    "ascii+tcp": (Ascii, 502),
}
_LINES: dict[str, Callable[[], Frames]] = {"rtu": Rtu, "ascii": Ascii}


class Place(NamedTuple):
    """What devices share that are units of one line: the same server answers for all of them."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def of(cls, url: str) -> Place:
        """Raises ValueError that says what can't be, without what to do."""
        parts = urlsplit(url)
        if parts.scheme in _LINES:
            return cls(parts.scheme, path=parts.path)
        host = parts.hostname or ""
        if parts.scheme not in _STREAMS and parts.scheme != "udp":
            raise ValueError(f"{url} can't be simulated")
        if not loopback(host):
            raise ValueError(f"{host or 'an empty host'} is not this machine, and simulated devices stay on it")
        return cls(parts.scheme, host, parts.port or _STREAMS.get(parts.scheme, (Mbap, 502))[1])

    def server(
        self,
        units: Mapping[int, Image],
        clock: Callable[[], int],
        context: Callable[[], ssl.SSLContext],
    ) -> Server:
        """`context` is asked only for TLS."""
        if self.scheme in _LINES:
            return PtyServer(Path(self.path), units, clock, _LINES[self.scheme])
        if self.scheme == "udp":
            return UdpServer(self.host, self.port, units, clock)
        framing, _ = _STREAMS[self.scheme]
        trust = context() if self.scheme == "tls" else None
        return ModbusServer(self.host, self.port, units, clock, framing=framing, context=trust)
