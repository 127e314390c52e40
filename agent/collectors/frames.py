"""Modbus frames, without input or output: MBAP, RTU and ASCII. The only file that imports pymodbus.

pymodbus makes request PDUs and checksums. Its client and its framers are not used: on a serial line they take a late
response for the next one's and stay one behind for ever, and no function code or byte count is verified. Here a frame
is only taken apart; `Question.judge` says whether it is an answer, and `agent.collectors.line` what follows from that.

Nothing here hunts for a frame within noise: where a serial frame should begin and does not, everything up to the next
silence is worthless (`reset`).
"""

from __future__ import annotations

import binascii
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from pymodbus.framer.ascii import FramerAscii
from pymodbus.framer.rtu import FramerRTU
from pymodbus.pdu.bit_message import ReadCoilsRequest, ReadDiscreteInputsRequest
from pymodbus.pdu.register_message import ReadHoldingRegistersRequest, ReadInputRegistersRequest

from agent.endpoint import Framing

MAX_PDU = 253
"""Bytes of a PDU on any line (V1.1b3, 4.1)."""

_READS = {
    1: ReadCoilsRequest,
    2: ReadDiscreteInputsRequest,
    3: ReadHoldingRegistersRequest,
    4: ReadInputRegistersRequest,
}
_HEADER = struct.Struct(">HHHB")
_LONGEST_ASCII = 2 * (MAX_PDU + 2)


class Discard(StrEnum):
    """Why a response was thrown away."""

    LATE = "late"
    DOUBLED = "doubled"
    FOREIGN = "foreign"
    WRONG = "wrong"
    SHORT = "short"
    LONG = "long"
    MALFORMED = "malformed"


class Frame(NamedTuple):
    """A frame whose checksum and length hold. `transaction` is 0 where its framing has none."""

    transaction: int
    unit: int
    pdu: bytes


class Malformed(NamedTuple):
    """What came is no frame. Nothing that follows is read before `reset`."""

    why: str


Found = list[Frame | Malformed]


@dataclass(slots=True, eq=False)
class Question:
    """One request. `size` is the bytes of values that its response must hold."""

    unit: int
    pdu: bytes
    size: int

    def judge(self, frame: Frame, *, any_unit: bool = False) -> bytes | int | Discard:
        """The values, the code of an exception, or why the frame is no answer to this question."""
        pdu = frame.pdu
        if frame.unit != self.unit and not any_unit:
            return Discard.FOREIGN
        if pdu[0] == self.pdu[0]:
            if len(pdu) == self.size + 2 == pdu[1] + 2:
                return pdu[2:]
            if len(pdu) == self.size + 2:
                return Discard.WRONG
            return Discard.SHORT if len(pdu) < self.size + 2 else Discard.LONG
        if pdu[0] == self.pdu[0] | 0x80:
            return pdu[1] if len(pdu) == 2 else Discard.LONG
        return Discard.WRONG


def read_pdu(function: int, address: int, count: int) -> bytes:
    """The PDU that reads `count` items; functions 1 to 4. Raises ValueError for what no device may be asked."""
    return bytes([function]) + _READS[function](address=address, count=count).encode()


class Framer(Protocol):
    """One direction each: `wrap` what is sent, `feed` what came. Holds at most one unfinished frame."""

    def wrap(self, unit: int, pdu: bytes, transaction: int) -> bytes: ...

    def feed(self, chunk: bytes) -> Found:
        """What is complete now. The same bytes give the same frames however they are cut into chunks."""

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame."""

    def reset(self) -> None:
        """Forgets what is unfinished, and starts anew."""


def framer(framing: Framing) -> Framer:
    match framing:
        case Framing.MBAP:
            return Mbap()
        case Framing.RTU:
            return Rtu()
        case Framing.ASCII:
            return Ascii()


class _Stream:
    """What the three have in common: the unfinished frame, and deafness after a malformed one."""

    def __init__(self) -> None:
        self._rest = b""
        self._deaf = False

    @property
    def pending(self) -> int:
        return len(self._rest)

    def reset(self) -> None:
        self._rest = b""
        self._deaf = False

    def _broken(self, why: str) -> Malformed:
        self._rest = b""
        self._deaf = True
        return Malformed(why)


class Mbap(_Stream):
    """Modbus TCP, also over TLS and UDP: a header with a transaction id (Messaging Implementation Guide V1.0b, 3.1)."""

    def wrap(self, unit: int, pdu: bytes, transaction: int) -> bytes:
        return _HEADER.pack(transaction, 0, len(pdu) + 1, unit) + pdu

    def feed(self, chunk: bytes) -> Found:
        found: Found = []
        if self._deaf:
            return found
        received = self._rest + chunk if self._rest else chunk
        at, end = 0, len(received)
        while end - at >= 7:
            transaction, protocol, length, unit = _HEADER.unpack_from(received, at)
            if protocol or not 3 <= length <= MAX_PDU + 1:
                found.append(self._broken(f"a header with protocol {protocol} and length {length}"))
                return found
            stop = at + 6 + length
            if stop > end:
                break
            found.append(Frame(transaction, unit, received[at + 7 : stop]))
            at = stop
        self._rest = received[at:]
        return found


class Rtu(_Stream):
    """Binary serial frames ended by a CRC (MODBUS over Serial Line V1.02, 2.5.1).

    A response tells its own length (function code, byte count), so that no timer has to find its end: a driver, a USB
    adapter or a TCP gateway may cut it anywhere.
    """

    def wrap(self, unit: int, pdu: bytes, transaction: int) -> bytes:  # noqa: ARG002
        body = bytes([unit]) + pdu
        return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")

    def feed(self, chunk: bytes) -> Found:
        found: Found = []
        if self._deaf:
            return found
        received = self._rest + chunk if self._rest else chunk
        at = 0
        while size := self._size(received, at):
            if size < 0:
                found.append(self._broken(f"no response has function code {received[at + 1]}"))
                return found
            stop = at + size
            if stop > len(received):
                break
            body = received[at : stop - 2]
            if FramerRTU.compute_CRC(body) != int.from_bytes(received[stop - 2 : stop], "big"):
                found.append(self._broken("a wrong checksum"))
                return found
            found.append(Frame(0, body[0], body[1:]))
            at = stop
        self._rest = received[at:]
        return found

    @staticmethod
    def _size(received: bytes, at: int) -> int:
        """Bytes of the frame that begins at `at`; 0 while that is not known, -1 where nothing can begin so."""
        here = len(received) - at
        if here < 2:
            return 0
        function = received[at + 1]
        if function & 0x80:
            return 5
        if function in (1, 2, 3, 4, 17):
            return received[at + 2] + 5 if here > 2 else 0
        if function in (5, 6, 15, 16):
            return 8
        if function == 43:
            return _identification_size(received, at)
        return -1


def _identification_size(received: bytes, at: int) -> int:
    """As `Rtu._size`, for the response to Read Device Identification (V1.1b3, 6.21)."""
    if len(received) <= at + 7:
        return 0
    end = at + 8
    for _ in range(received[at + 7]):
        if len(received) < end + 2:
            return 0
        end += 2 + received[end + 1]
        if end - at > MAX_PDU + 1:
            return -1
    return end - at + 2


class Ascii(_Stream):
    """`:` hex digits, checksum, CR LF (MODBUS over Serial Line V1.02, 2.5.2)."""

    def wrap(self, unit: int, pdu: bytes, transaction: int) -> bytes:  # noqa: ARG002
        body = bytes([unit]) + pdu
        return b":" + binascii.hexlify(body + bytes([FramerAscii.compute_LRC(body)])).upper() + b"\r\n"

    def feed(self, chunk: bytes) -> Found:
        found: Found = []
        if self._deaf:
            return found
        received = self._rest + chunk if self._rest else chunk
        while received:
            end = received.find(b"\n")
            line = received if end < 0 else received[:end]
            # Judged from its first bytes on, so that no chunking makes a difference.
            if line[:1] != b":" or len(line) > _LONGEST_ASCII + 2:
                found.append(self._broken("no line of ASCII framing"))
                return found
            if end < 0:
                break
            frame = self._frame(line)
            if isinstance(frame, Malformed):
                found.append(self._broken(frame.why))
                return found
            found.append(frame)
            received = received[end + 1 :]
        self._rest = received
        return found

    @staticmethod
    def _frame(line: bytes) -> Frame | Malformed:
        if not line.endswith(b"\r"):
            return Malformed("a line without CR")
        try:
            body = binascii.unhexlify(line[1:-1])
        except binascii.Error:
            return Malformed("a line with what is no hex digit")
        if len(body) < 4:
            return Malformed("a line too short for a response")
        if FramerAscii.compute_LRC(body[:-1]) != body[-1]:
            return Malformed("a wrong checksum")
        return Frame(0, body[0], body[1:-1])
