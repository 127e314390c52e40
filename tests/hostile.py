"""A Modbus device that answers late, short, wrong, twice, for others, or not at all, and lets every lie be known.

Each of its responses holds (unit and function, address, request number) as six words, so that a value that was taken
from any other response than the one to the very last request is found out. What it may not do on a serial line is what
nobody could tell from the truth: answer later than `timeout + late`, or twice with a pause longer than the line's gap.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pymodbus.framer.ascii import FramerAscii
from pymodbus.framer.rtu import FramerRTU

from agent.collectors.carrier import Ear, Trust
from agent.endpoint import Endpoint, Framing

WORDS = 6
_VALUES = struct.Struct(">BBHII")  # unit, function, address, request number twice: 12 bytes
LIES = (
    "silent", "late", "cut", "fewer", "more", "trailing", "flipped", "doubled", "twice", "foreign", "function",
    "noise", "exception", "drop",
)  # fmt: skip


def truth(unit: int, function: int, address: int, number: int) -> bytes:
    """The values in the response to the device's request `number`."""
    return _VALUES.pack(unit, function, address, number, number ^ 0xFFFF_FFFF)


def wrap(framing: Framing, transaction: int, unit: int, pdu: bytes) -> bytes:
    body = bytes([unit]) + pdu
    match framing:
        case Framing.MBAP:
            return struct.pack(">HHH", transaction, 0, len(body)) + body
        case Framing.RTU:
            return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")
        case Framing.ASCII:
            return f":{body.hex()}{FramerAscii.compute_LRC(body):02x}\r\n".upper().encode()


def unwrap(framing: Framing, frame: bytes) -> tuple[int, int, bytes]:
    """(transaction, unit, PDU) of a request; it came from us, whole."""
    match framing:
        case Framing.MBAP:
            return int.from_bytes(frame[:2], "big"), frame[6], frame[7:]
        case Framing.RTU:
            assert FramerRTU.check_CRC(frame[:-2], int.from_bytes(frame[-2:], "big"))
            return 0, frame[0], frame[1:-2]
        case Framing.ASCII:
            body = bytes.fromhex(frame[1:-2].decode())
            return 0, body[0], body[1:-1]


@dataclass(slots=True)
class Hostile:
    """What such a device sends for a request: (seconds until then, bytes), or None to drop the connection."""

    seed: int
    framing: Framing
    timeout: float
    late: float
    gap: float
    share: float = 0.3
    """How many of its answers are lies."""
    number: int = 0
    told: Counter[str] = field(default_factory=Counter)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def answer(self, frame: bytes) -> list[tuple[float, bytes | None]]:  # noqa: C901, PLR0911, PLR0912  (one lie a case)
        self.number += 1
        transaction, unit, pdu = unwrap(self.framing, frame)
        function, address, count = struct.unpack(">BHH", pdu)
        assert count == WORDS
        values = truth(unit, function, address, self.number)
        whole = wrap(self.framing, transaction, unit, bytes([function, len(values)]) + values)
        dice = self._random
        soon = dice.choice((0.0, dice.uniform(0, 0.5 * self.timeout)))
        lie = dice.choice(LIES) if dice.random() < self.share else "truth"
        self.told[lie] += 1
        match lie:
            case "silent":
                return []
            case "late":
                # On a serial line not after the last moment at which an answer is reckoned with.
                most = 0.7 if self.framing is not Framing.MBAP else 5
                return self._pieces(self.timeout + dice.uniform(0.01, most) * self.late, whole)
            case "cut":
                return self._pieces(soon, whole[: dice.randrange(1, len(whole))])
            case "fewer":
                less = values[: 2 * dice.randrange(WORDS)]
                return self._pieces(soon, wrap(self.framing, transaction, unit, bytes([function, len(less)]) + less))
            case "more":
                more = values + dice.randbytes(2 * dice.randrange(1, 50))
                return self._pieces(soon, wrap(self.framing, transaction, unit, bytes([function, len(more)]) + more))
            case "trailing":
                return [(soon, whole + dice.randbytes(dice.randrange(1, 20)))]
            case "flipped":
                return self._pieces(soon, self._flipped(whole))
            case "doubled":
                return [(soon, whole + whole)]
            case "twice":
                pause = dice.uniform(0, 0.5 * self.gap if self.framing is not Framing.MBAP else 3 * self.timeout)
                return [(soon, whole), (soon + pause, whole)]
            case "foreign":
                other = wrap(self.framing, dice.randrange(65536), unit % 3 + 1, bytes([function, len(values)]) + values)
                return [(soon, other), *self._pieces(soon + dice.uniform(0, 0.3) * self.timeout, whole)]
            case "function":
                return self._pieces(soon, wrap(self.framing, transaction, unit, bytes([7 - function, 12]) + values))
            case "noise":
                noise = dice.randbytes(dice.randrange(1, 30))
                return [(soon, noise), (soon + dice.uniform(0, 0.3) * self.timeout, whole)]
            case "exception":
                code = dice.choice((4, 5, 6, 10, 11))
                return self._pieces(soon, wrap(self.framing, transaction, unit, bytes([function | 0x80, code])))
            case "drop":
                return [(soon, None)]
            case _:
                return self._pieces(soon, whole)

    def _pieces(self, when: float, whole: bytes) -> list[tuple[float, bytes | None]]:
        """The bytes as a slow line delivers them."""
        found: list[tuple[float, bytes | None]] = []
        least = 2 if self.framing is Framing.MBAP else 1
        while len(whole) > 2 * least and self._random.random() < 0.2:
            at = self._random.randrange(least, len(whole) - least + 1)
            found.append((when, whole[:at]))
            whole = whole[at:]
            when += self._random.uniform(0, 0.1) * self.timeout
        return [*found, (when, whole)] if whole else found

    def _flipped(self, whole: bytes) -> bytes:
        """With bits changed where that can be noticed: Modbus TCP has no checksum over its values."""
        end = 9 if self.framing is Framing.MBAP else len(whole)
        at = self._random.randrange(end)
        return whole[:at] + bytes([whole[at] ^ self._random.randrange(1, 256)]) + whole[at + 1 :]


class MemoryLine:
    """Wires to a hostile device, in memory. Behind serial framing they all lead to one serial line, as with a real
    gateway: what is said late is heard by whoever is connected then."""

    def __init__(self, device: Hostile) -> None:
        self.device = device
        self.opened = 0
        self._ears: list[Ear] = []

    async def open(self, endpoint: Endpoint, trust: Trust, ear: Ear) -> _MemoryWire:
        self.opened += 1
        self._ears = [ear]
        return _MemoryWire(self, ear)

    def say(self, what: bytes | None, to: Ear) -> None:
        if self.device.framing is not Framing.MBAP:
            for ear in self._ears:
                if what is not None:
                    ear.heard(what)
        elif to in self._ears:
            if what is None:
                self._ears.remove(to)
                to.lost("dropped")
            else:
                to.heard(what)

    def closed(self, ear: Ear) -> None:
        if ear in self._ears:
            self._ears.remove(ear)


class _MemoryWire:
    def __init__(self, line: MemoryLine, ear: Ear) -> None:
        self._line = line
        self._ear = ear

    def send(self, frame: bytes) -> None:
        loop = asyncio.get_running_loop()
        for delay, what in self._line.device.answer(frame):
            loop.call_later(delay, self._line.say, what, self._ear)

    def close(self) -> None:
        self._line.closed(self._ear)


async def serve(device: Hostile) -> tuple[asyncio.Server, Callable[[], int]]:
    """The same device at a port of 127.0.0.1. Requests come one at a time, so each read is one."""
    writers: list[asyncio.StreamWriter] = []

    def say(what: bytes | None, to: asyncio.StreamWriter) -> None:
        serial = device.framing is not Framing.MBAP
        for writer in writers[-1:] if serial else [to]:
            if writer.is_closing():
                continue
            if what is None:
                writer.close()
            else:
                writer.write(what)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while frame := await reader.read(1000):
                for delay, what in device.answer(frame):
                    asyncio.get_running_loop().call_later(delay, say, what, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    return server, lambda: int(server.sockets[0].getsockname()[1])
