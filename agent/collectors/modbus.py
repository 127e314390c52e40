"""Modbus: polls the tags of one unit over a line that it may share with others.

The registers of a response stay bytes; the core decodes them in one call, within the call that heard them. Each
response gets one time: the middle between its request's departure and its arrival.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from agent.clock import now_ns
from agent.collectors.base import Inlet
from agent.collectors.frames import Discard, Question, read_pdu
from agent.collectors.line import Line
from agent.collectors.requests import Request, requests
from agent.collectors.turns import Turn
from agent.config import ModbusDevice
from agent.model import StatusCode

log = logging.getLogger("headrace.collector")

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
REFUSALS = {
    ILLEGAL_FUNCTION: StatusCode.BAD_NOT_READABLE,
    ILLEGAL_ADDRESS: StatusCode.BAD_NODE_ID_UNKNOWN,
    ILLEGAL_VALUE: StatusCode.BAD_NODE_ID_UNKNOWN,
    4: StatusCode.BAD_DEVICE_FAILURE,
}
"""Exception codes (V1.1b3, 7) as qualities. Any other is a communication error. None is ever a value."""
LASTING = frozenset({ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE})
"""What a device goes on saying until someone changes its program."""
FIRST_REST, LONGEST_REST = 60.0, 3600.0
"""Seconds before what was refused so is asked again: doubled each time."""


@dataclass(slots=True, eq=False)
class _Poll(Question):
    """A request, its plan in the core, and how its device last refused it (`status` 0: it answered)."""

    request: Request
    plan: int
    status: int = 0
    rest: float = 0.0
    due: float = 0.0
    """When to ask again, by the loop's clock; 0 where it is not at rest."""


@dataclass(slots=True)
class _Class:
    """What is polled at one period, in seconds, and when next."""

    period: float
    polls: list[_Poll]
    next: float = 0.0


class ModbusCollector:
    """Reads the tags of one device, each at its period."""

    def __init__(self, device: ModbusDevice, inlet: Inlet, line: Line) -> None:
        self.device = device
        self.unit = device.unit
        self.timeout = device.timeout
        self.late = device.late
        self.tries = device.tries
        names = ("requests", "timeouts", "exceptions", "overruns", "discarded")
        self.counters = dict.fromkeys((*names, *(f"discarded_{each}" for each in Discard)), 0)
        self._inlet = inlet
        self._line = line
        self._classes: list[_Class] = []
        for request in requests(device.tags, device.limits, device.poll):
            self._add(self._poll(request))

    def _poll(self, request: Request) -> _Poll:
        pdu = read_pdu(request.function, request.address, request.count)
        plan = self._inlet.modbus_plan(request.fields(), bits=request.bits)
        return _Poll(self.unit, pdu, request.size, request, plan)

    def _add(self, poll: _Poll) -> None:
        period = poll.request.period
        for each in self._classes:
            if each.period == period:
                each.polls.append(poll)
                return
        self._classes.append(_Class(period, [poll]))

    async def connect(self) -> None:
        self._line.attach(self)
        polls = [poll for each in self._classes for poll in each.polls]
        # A gateway accepts a connection for units that are not there: only an answer shows that this one is.
        known = next((poll for poll in polls if not poll.status), *polls[:1])
        patience = self.timeout if self.device.first_timeout is None else self.device.first_timeout
        await self._line.ask(Turn(self, [known], _Knock(), timeout=patience, tries=1))
        # While the device was away its tags were bad for that reason; what it refuses has its own again.
        now = now_ns()
        for poll in polls:
            if poll.status:
                self._push_bad(poll, now)
        start = asyncio.get_running_loop().time()
        for each in self._classes:
            each.next = start

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(min(each.next for each in self._classes) - loop.time())
        now = loop.time()
        polls: list[_Poll] = []
        for each in self._classes:
            if each.next <= now:
                # A poll that is late is not doubled: the next one keeps to the clock.
                missed = int((now - each.next) / each.period)
                self.counters["overruns"] += missed
                each.next += (missed + 1) * each.period
                polls += each.polls if not any(poll.due for poll in each.polls) else _awake(each.polls, now)
        if polls:
            await self._line.ask(Turn(self, polls, self))

    async def close(self) -> None:
        self._line.detach(self)

    def answered(self, question: Question, payload: bytes, time_ns: int) -> None:
        assert isinstance(question, _Poll)
        self._inlet.push_registers(question.plan, payload, time_ns)
        if question.status:
            question.status, question.rest, question.due = 0, 0.0, 0.0
            names = _names(question.request)
            facts = {"event": "read_accepted", "device": self.device.name}
            log.info("%s: answers again for %s", self.device.name, names, extra=facts)

    def refused(self, question: Question, code: int, time_ns: int) -> Sequence[Question]:
        assert isinstance(question, _Poll)
        if code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE) and len(parts := question.request.split()) > 1:
            return self._split(question, parts, code)
        if code in LASTING:
            question.rest = min(max(2 * question.rest, FIRST_REST), LONGEST_REST)
            question.due = asyncio.get_running_loop().time() + question.rest
        status = REFUSALS.get(code, StatusCode.BAD_COMMUNICATION_ERROR)
        if question.status != status:
            # Bad readings once for as long as the device goes on refusing in the same way.
            question.status = status
            facts = {"event": "read_refused", "device": self.device.name, "exception": code}
            names = _names(question.request)
            log.warning("%s: exception %d reading %s", self.device.name, code, names, extra=facts)
            self._push_bad(question, time_ns)
        return ()

    def _split(self, poll: _Poll, parts: Sequence[Request], code: int) -> Sequence[Question]:
        """One bad address refuses a whole request: halves from here on, and of these again, until it is alone.

        The parts stay for as long as the collector lives, over reconnects: nobody is asked for the whole again.
        """
        tags, name = len(poll.request.tags), self.device.name
        facts = {"event": "request_split", "device": name}
        log.info("%s: refused to read %d tags at once (exception %d); asking for parts", name, tags, code, extra=facts)
        made = [self._poll(part) for part in parts]
        for each in self._classes:
            if poll in each.polls:
                at = each.polls.index(poll)
                each.polls[at : at + 1] = made
        return made

    def _push_bad(self, poll: _Poll, time_ns: int) -> None:
        self._inlet.push([(tag.index, time_ns, None, poll.status) for tag in poll.request.tags])


class _Knock:
    """Only wants to know whether there is an answer; a refusal is one."""

    def answered(self, question: Question, payload: bytes, time_ns: int) -> None:  # noqa: ARG002
        return

    def refused(self, question: Question, code: int, time_ns: int) -> Sequence[Question]:  # noqa: ARG002
        return ()


def _awake(polls: Sequence[_Poll], now: float) -> list[_Poll]:
    return [poll for poll in polls if poll.due <= now]


def _names(request: Request) -> str:
    return ", ".join(f"{tag.name} ({tag.address})" for tag in request.tags)
