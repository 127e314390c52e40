"""How a request comes out of a stream of bytes, and how its answer is wrapped. No input or output here.

Written from the specifications alone and apart from the agent's own framing, so that a mistake in one does not hide in
the other: MODBUS Messaging on TCP/IP V1.0b (MBAP), MODBUS over Serial Line V1.02 (RTU: 2.5.1, ASCII: 2.5.2).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

MAX_FRAME = 260
"""Bytes of a Modbus TCP frame, header and all."""
_MAX_RTU = 256
_MAX_ASCII = 513
SILENCE = 0.05
"""Seconds without a byte after which half a request is forgotten. A real device waits for 1.5 characters; behind a
socket or a pty there is no such clock."""
BROADCAST = 0
"""The unit id that all devices of a serial line hear and none answers."""


class NotModbus(Exception):
    """What came can't be a request, and there is no way to find where the next one begins."""


class Asked(NamedTuple):
    """One request. `tag` is what its answer has to repeat (the transaction id; 0 on a serial line)."""

    unit: int
    pdu: bytes
    tag: int = 0


class Frames(Protocol):
    """One direction of one connection."""

    gateway: bool
    """Whether a unit that is not there is answered for (exception 0x0B); on a serial line it is silent."""

    def feed(self, received: bytes, now: float) -> Iterator[Asked]:
        """Every request that is whole by now (`now`: monotonic seconds). Raises NotModbus."""

    def wrap(self, asked: Asked, pdu: bytes) -> bytes:
        """The frame of an answer."""


class Mbap:
    """Modbus TCP, TLS and UDP."""

    gateway = True
    _HEADER = struct.Struct(">HHHB")

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, received: bytes, now: float) -> Iterator[Asked]:  # noqa: ARG002
        self._held += received
        while len(self._held) >= self._HEADER.size:
            transaction, protocol, length, unit = self._HEADER.unpack_from(self._held)
            end = 6 + length
            if protocol != 0 or length < 2 or end > MAX_FRAME:
                raise NotModbus(f"a header of protocol {protocol} and length {length}")
            if len(self._held) < end:
                return
            pdu = bytes(self._held[self._HEADER.size : end])
            del self._held[:end]
            yield Asked(unit, pdu, transaction)

    def wrap(self, asked: Asked, pdu: bytes) -> bytes:
        return self._HEADER.pack(asked.tag, 0, len(pdu) + 1, asked.unit) + pdu


def crc16(frame: bytes | bytearray) -> int:
    """CRC-16 of RTU (V1.02, 6.2.2), bit by bit: polynomial 0xA001, start 0xFFFF."""
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


class Rtu:
    """RTU. A request's length follows from its function; bytes that can't begin one are skipped one by one."""

    gateway = False

    def __init__(self) -> None:
        self._held = bytearray()
        self._last = 0.0

    def feed(self, received: bytes, now: float) -> Iterator[Asked]:
        if now - self._last > SILENCE:
            self._held.clear()
        self._last = now
        self._held += received
        while len(self._held) >= 4:
            end = self._end()
            if end is None:
                return
            if end == 0:
                del self._held[0]
                continue
            frame = bytes(self._held[:end])
            del self._held[:end]
            yield Asked(frame[0], frame[1:-2])

    def _end(self) -> int | None:
        """Where the first frame ends; 0 where none begins here, None where more has to come."""
        function = self._held[1]
        if function == 0 or function > 127:
            return 0
        if 1 <= function <= 6:
            ends = [8]
        elif function in (15, 16):
            if len(self._held) < 7:
                return None
            ends = [9 + self._held[6]]
        elif function == 43:
            ends = [7]
        else:
            ends = list(range(4, min(len(self._held), _MAX_RTU) + 1))  # of any length: only its CRC tells
        for end in ends:
            if len(self._held) < end:
                return None
            if crc16(self._held[: end - 2]) == int.from_bytes(self._held[end - 2 : end], "little"):
                return end
        return None if len(ends) > 1 and len(self._held) < _MAX_RTU else 0

    def wrap(self, asked: Asked, pdu: bytes) -> bytes:
        frame = bytes((asked.unit,)) + pdu
        return frame + crc16(frame).to_bytes(2, "little")


class Ascii:
    """ASCII: a colon, hexadecimal digits, an LRC, CR and LF. What is no such line is skipped."""

    gateway = False

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, received: bytes, now: float) -> Iterator[Asked]:  # noqa: ARG002
        self._held += received
        while (end := self._held.find(b"\n")) >= 0:
            line = bytes(self._held[:end])
            del self._held[: end + 1]
            start = line.rfind(b":")
            if start < 0 or not line.endswith(b"\r"):
                continue
            try:
                frame = bytes.fromhex(line[start + 1 : -1].decode("ascii"))
            except ValueError:
                continue
            if len(frame) >= 3 and sum(frame) & 0xFF == 0:
                yield Asked(frame[0], frame[1:-1])
        del self._held[:-_MAX_ASCII]

    def wrap(self, asked: Asked, pdu: bytes) -> bytes:
        frame = bytes((asked.unit,)) + pdu
        return b":" + (frame + bytes((-sum(frame) & 0xFF,))).hex().upper().encode() + b"\r\n"
