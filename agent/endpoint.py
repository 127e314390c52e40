"""Where a Modbus line begins: the `url` of a device, taken apart.

    tcp://host:502   tls://host:802   udp://host:502   rtu+tcp://host:502   ascii+tcp://host:502
    rtu:///dev/ttyUSB0?baudrate=9600&parity=N   ascii:///dev/ttyS1

Serial settings that are left out are those of "MODBUS over Serial Line" V1.02, 2.5.1: 19200 baud, even parity, 8 data
bits (7 for ASCII), 1 stop bit (2 without parity).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit

from agent import quantity
from agent.wire import without_password

MODBUS_URLS = (
    'url = "tcp://host:502" (or tls, udp, rtu+tcp, ascii+tcp), or "rtu:///dev/ttyUSB0?baudrate=9600" (or ascii)'
)
Parity: TypeAlias = Literal["N", "E", "O", "M", "S"]

_PARITIES: tuple[Parity, ...] = ("N", "E", "O", "M", "S")
_SWITCH = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
_SERIAL_OPTIONS = (
    "baudrate",
    "bytesize",
    "parity",
    "stopbits",
    "rs485",
    "rts_on_send",
    "rts_after_send",
    "rts_delay_before",
    "rts_delay_after",
    "rx_during_tx",
)


class Framing(StrEnum):
    """How a PDU is wrapped: with the header of Modbus TCP, or as on a serial line."""

    MBAP = "mbap"
    RTU = "rtu"
    ASCII = "ascii"


class Carrier(StrEnum):
    """What carries the bytes."""

    TCP = "tcp"
    TLS = "tls"
    UDP = "udp"
    SERIAL = "serial"


_SCHEMES = {
    "tcp": (Framing.MBAP, Carrier.TCP),
    "tls": (Framing.MBAP, Carrier.TLS),
    "udp": (Framing.MBAP, Carrier.UDP),
    "rtu+tcp": (Framing.RTU, Carrier.TCP),
    "ascii+tcp": (Framing.ASCII, Carrier.TCP),
    "rtu": (Framing.RTU, Carrier.SERIAL),
    "ascii": (Framing.ASCII, Carrier.SERIAL),
}


@dataclass(frozen=True, slots=True)
class Rs485:
    """The driver's RS-485 mode (Linux TIOCSRS485): which level RTS has, and seconds before and after sending."""

    rts_on_send: bool = True
    rts_after_send: bool = False
    delay_before: float = 0.0
    delay_after: float = 0.0
    rx_during_tx: bool = False


@dataclass(frozen=True, slots=True)
class SerialSettings:
    """A serial port. `character` is how long one character takes, in seconds."""

    path: str
    baudrate: int = 19200
    bytesize: int = 8
    parity: Parity = "E"
    stopbits: int = 1
    rs485: Rs485 | None = None

    @property
    def character(self) -> float:
        return (1 + self.bytesize + (self.parity != "N") + self.stopbits) / self.baudrate


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`host` and `port` are empty where `serial` is set."""

    framing: Framing
    carrier: Carrier
    host: str = ""
    port: int = 0
    serial: SerialSettings | None = None

    def travel(self, octets: int) -> float:
        """Seconds that so many bytes and the frame of an answer take on a serial line, with some room; otherwise 0."""
        return self.serial.character * 2 * (octets + 8) if self.serial is not None else 0.0

    @property
    def bus(self) -> tuple[bool, str]:
        """The same for all that must share one owner, however they were written."""
        return self.carrier is Carrier.UDP, self.place

    @property
    def place(self) -> str:
        """What it is called in messages."""
        return self.serial.path if self.serial is not None else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Raises ValueError that reads "what is wrong; write what to write instead"."""
        shown = quantity.shown(without_password(text))
        framing, carrier = _SCHEMES.get(text.partition("://")[0], (None, None))
        if framing is None or carrier is None:
            raise ValueError(f"{shown} is not a Modbus address; write {MODBUS_URLS}")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ValueError(f"{shown} is not a URL; write {MODBUS_URLS}") from None
        if not text.isprintable() or " " in text:
            raise ValueError(f"{shown} has a space or a sign that can't be printed; write {MODBUS_URLS}")
        if carrier is Carrier.SERIAL:
            if parts.netloc or not parts.path.startswith("/") or parts.path.endswith("/") or parts.fragment:
                raise ValueError(f"{shown} names no port of this machine; write {MODBUS_URLS}")
            return cls(framing, carrier, serial=_serial(parts.path, parts.query, framing))
        if not parts.hostname or port == 0:
            raise ValueError(f"{shown} has no host, or a port that can't be; write {MODBUS_URLS}")
        if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
            raise ValueError(f"{shown} has more than a host and a port; write {MODBUS_URLS}")
        return cls(framing, carrier, parts.hostname, port or (802 if carrier is Carrier.TLS else 502))


@dataclass(frozen=True, slots=True)
class LineSettings:
    """What all devices of one line share. Two devices with the same `url` must have the same of it."""

    endpoints: tuple[Endpoint, ...]
    """Where to connect: the first, and where there is one its backup. All with one framing."""
    delay: float | None = None
    """Seconds of silence between an answer and the next request; None: what the framing needs."""
    connect_pause: float = 0.0
    """Seconds of silence after connecting."""
    pipeline: int = 1
    """Transactions that may wait for their answers at once."""
    each_poll: bool = False
    """Whether the connection is closed after each poll."""
    echo: bool = False
    """Whether every request comes back before its answer."""
    any_transaction_id: bool = False
    any_unit_id: bool = False
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    @property
    def ordered(self) -> bool:
        """Whether only their order tells which answer is whose: the line is then subject to the dirty-line rule."""
        return self.endpoints[0].framing is not Framing.MBAP or self.any_transaction_id

    @property
    def gap(self) -> float:
        """Seconds between an answer and the next request.

        On a serial line 3.5 characters, and at least 1.75 ms (MODBUS over Serial Line V1.02, 2.5.1.1). Where a gateway
        hides the line, as long as at 19200 baud: what comes within it (a doubled answer) shows that the line is dirty.
        """
        if self.delay is not None:
            return self.delay
        if (port := self.endpoints[0].serial) is not None:
            return max(3.5 * port.character, 0.00175)
        return 0.002 if self.ordered else 0.0


def _serial(path: str, query: str, framing: Framing) -> SerialSettings:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    odd = [name for name in options if name not in _SERIAL_OPTIONS]
    if odd or len(options) != len(pairs):
        what = f"{quantity.shown(odd[0])} is not an option of a serial port" if odd else "an option is named twice"
        raise ValueError(f"{what}; write one of {', '.join(_SERIAL_OPTIONS)}, each once")
    parity = options.get("parity", "E")
    known = next((each for each in _PARITIES if each == parity), None)
    if known is None:
        raise ValueError(f"{quantity.shown(parity)} is not a parity; write parity=N, E, O, M or S")
    return SerialSettings(
        path,
        baudrate=_whole(options, "baudrate", 19200, range(50, 4_000_001)),
        bytesize=_whole(options, "bytesize", 7 if framing is Framing.ASCII else 8, range(7, 9)),
        parity=known,
        stopbits=_whole(options, "stopbits", 2 if known == "N" else 1, range(1, 3)),
        rs485=_rs485(options),
    )


def _rs485(options: dict[str, str]) -> Rs485 | None:
    if not _switch(options, "rs485", False):
        if any(name.startswith(("rts_", "rx_")) for name in options):
            raise ValueError("RTS is only driven in RS-485 mode; write rs485=1 as well")
        return None
    return Rs485(
        _switch(options, "rts_on_send", True),
        _switch(options, "rts_after_send", False),
        _delay(options, "rts_delay_before"),
        _delay(options, "rts_delay_after"),
        _switch(options, "rx_during_tx", False),
    )


def _whole(options: dict[str, str], name: str, usual: int, among: range) -> int:
    text = options.get(name, str(usual))
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) in among):
        wanted = f"a whole number from {among[0]} to {among[-1]}"
        raise ValueError(f"{quantity.shown(text)} is not a {name}; write {name}={usual}, or {wanted}")
    return int(text)


def _switch(options: dict[str, str], name: str, usual: bool) -> bool:
    if name not in options:
        return usual
    try:
        return _SWITCH[options[name].lower()]
    except KeyError:
        raise ValueError(f"{quantity.shown(options[name])} is neither on nor off; write {name}=1 or {name}=0") from None


def _delay(options: dict[str, str], name: str) -> float:
    if name not in options:
        return 0.0
    seconds = quantity.seconds(options[name])
    if not 0 < seconds <= 1:
        raise ValueError(f"{quantity.shown(options[name])} is no delay of RTS; write {name}=1ms, at most 1s")
    return seconds
