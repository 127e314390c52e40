"""How many of the values that a hostile device's line delivers are wrong: `python -m tests.modbus_soak REQUESTS`."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.collectors.connection import Opener
from agent.collectors.frames import Discard, Question, read_pdu
from agent.collectors.line import Line
from agent.collectors.turns import Turn
from agent.endpoint import Endpoint, Framing, LineSettings
from agent.errors import NotConnected
from tests.hostile import WORDS, Hostile, MemoryLine, truth
from tests.virtual_time import run

URLS = {Framing.MBAP: "tcp", Framing.RTU: "rtu+tcp", Framing.ASCII: "ascii+tcp"}
UNITS = (1, 2, 3)
PLACES = (100, 200, 300)


@dataclass(eq=False)
class Unit:
    """A device on the line, which asks for the same few places again and again, and checks what it gets."""

    unit: int
    timeout: float
    late: float
    device: Hostile
    tries: int = 2
    counters: dict[str, int] = field(default_factory=Counter)
    right: int = 0
    refused_: int = 0
    wrong: list[str] = field(default_factory=list)

    def answered(self, question: Question, payload: bytes, time_ns: int) -> None:
        function, address = question.pdu[0], int.from_bytes(question.pdu[1:3], "big")
        expected = truth(self.unit, function, address, self.device.number)
        if payload == expected:
            self.right += 1
        else:
            self.wrong.append(f"request {self.device.number}: {payload.hex()} is not {expected.hex()}")

    def refused(self, question: Question, code: int, time_ns: int) -> Sequence[Question]:
        self.refused_ += 1
        return ()

    async def poll(self, line: Line, dice: random.Random, requests: int) -> None:
        """Until the device has seen so many requests. Lost, it comes back, as the supervisor would see to."""
        while self.device.number < requests:
            questions = [
                Question(self.unit, read_pdu(dice.choice((3, 4)), dice.choice(PLACES), WORDS), 2 * WORDS)
                for _ in range(dice.randrange(1, 5))
            ]
            line.attach(self)
            patience = dice.uniform(0, 3) * self.timeout
            try:
                if dice.random() < 0.1:
                    async with asyncio.timeout(patience):  # a poll that is cancelled, at any moment
                        await line.ask(Turn(self, questions, self))
                else:
                    await line.ask(Turn(self, questions, self))
            except TimeoutError:
                pass
            except NotConnected:
                line.detach(self)
                await asyncio.sleep(patience)
        line.detach(self)


async def soak(
    framing: Framing,
    requests: int,
    seed: int,
    *,
    device: Hostile | None = None,
    opener: Opener | None = None,
    port: int = 1,
    pauses: float = 0.0,
) -> dict[str, object]:
    """Runs so many requests against the device, in memory where no opener is given. The facts, with what was wrong.

    `pauses` are those of the machine, in seconds: by so much later than the device means to it may say something.
    """
    settings = LineSettings((Endpoint.parse(f"{URLS[framing]}://127.0.0.1:{port}"),))
    device = device or Hostile(seed, framing, timeout=1.0, late=1.0, gap=settings.gap)
    line = Line(settings, opener or MemoryLine(device).open)
    dice = random.Random(seed + 1)
    units = [Unit(unit, device.timeout, device.late + pauses, device) for unit in UNITS]
    started = time.monotonic()
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(str(context)))
    await asyncio.gather(*(unit.poll(line, dice, requests) for unit in units))
    counted: Counter[str] = Counter()
    for unit in units:
        counted.update(unit.counters)
    wrong = [*errors, *(each for unit in units for each in unit.wrong)]
    return {
        "framing": framing.value,
        "seed": seed,
        "requests": device.number,
        "lies": device.number - device.told["truth"],
        "right": sum(unit.right for unit in units),
        "exceptions": counted["exceptions"],
        "timeouts": counted["timeouts"],
        **{f"discarded_{kind}": counted[f"discarded_{kind}"] for kind in Discard},
        "wrong": len(wrong),
        "seconds": round(time.monotonic() - started, 1),
        **({"first_wrong": wrong[0]} if wrong else {}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", type=int)
    parser.add_argument("--seed", type=int, default=1)
    words = parser.parse_args()
    failed = 0
    for framing in Framing:
        facts = run(soak(framing, words.requests, words.seed))
        print(json.dumps(facts), flush=True)
        failed |= facts["wrong"] != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
