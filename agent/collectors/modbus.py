"""Modbus: polls the tags of one unit over a line that it may share with others.

The registers of a response stay bytes; the core decodes them in one call, within the call that heard them. Each
response gets one time: the middle between its request's departure and its arrival.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.clock import now_ns
from agent.collectors.base import Inlet
from agent.collectors.findings import Findings
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
"""Seconds before what was refused so, or never answered, is asked again: doubled each time."""
STRIKES = 3
"""So often in a row a device has to be lost over one request, and answer others again, before it is the request that
gets no answer, and not the device that is gone."""
ROW = 1.0
"""Seconds in which polls that are late follow one another within one `read`."""


@dataclass(slots=True, eq=False)
class _Poll(Question):
    """A request, its plan in the core, and how its device last refused it (`status` 0: it answered)."""

    request: Request
    plan: int
    status: int = 0
    silent: int = 0
    """How often in a row it got no valid answer, though its device gave others."""
    knocked: int = 0
    """How often in a row it was knocked with in vain."""
    rest: float = 0.0
    due: float = 0.0
    """When to ask again, by the loop's clock; 0 where it is not at rest."""


@dataclass(slots=True)
class _Class:
    """What is polled at one period, in seconds, and when next."""

    period: float
    polls: list[_Poll]
    next: float = 0.0
    resting: bool = False
    """Whether any of them is at rest."""
    asked: bool = False
    """Whether it is being polled."""
    findings: dict[int, Findings] = field(default_factory=dict)
    """By function code, once something was refused."""

    def due(self, now: float) -> list[_Poll]:
        """What is not at rest."""
        if not self.resting:
            return self.polls
        self.resting = any(poll.due for poll in self.polls)
        return [poll for poll in self.polls if poll.due <= now]


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
        self._loop: asyncio.AbstractEventLoop
        self._classes: list[_Class] = []
        self._plans: dict[Request, int] = {}
        self._row_ends = 0.0
        for request in requests(device.tags, device.limits, device.poll):
            self._add(self._poll(request))

    def _poll(self, request: Request) -> _Poll:
        pdu = read_pdu(request.function, request.address, request.count)
        if (plan := self._plans.get(request)) is None:
            plan = self._plans[request] = self._inlet.modbus_plan(request.fields(), bits=request.bits)
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
        await self._knock(min(polls, key=lambda poll: (poll.status != 0, poll.silent > 0, poll.knocked)))
        # While the device was away its tags were bad for that reason; what it refuses has its own again.
        now = now_ns()
        for poll in polls:
            if poll.status:
                self._push_bad(poll, now)
        self._loop = asyncio.get_running_loop()
        start = self._loop.time()
        for each in self._classes:
            each.next = start

    async def _knock(self, poll: _Poll) -> None:
        """Asks for what is known to be answered; of what may be the very request that is not, for one tag after the
        other."""
        tags = poll.request.tags
        whole = not poll.knocked or len(tags) == 1
        one = poll.request if whole else poll.request.of(tags[(poll.knocked - 1) % len(tags)])
        question = Question(self.unit, read_pdu(one.function, one.address, one.count), one.size)
        patience = self.timeout if self.device.first_timeout is None else self.device.first_timeout
        poll.knocked += 1
        await self._line.ask(Turn(self, [question], _Knock(), timeout=patience, tries=1))
        if whole:
            poll.knocked = poll.silent = 0
        else:
            poll.knocked -= 1

    async def read(self) -> None:
        now = self._loop.time()
        pause = min([each.next for each in self._classes]) - now
        if pause > 0:
            await asyncio.sleep(pause)
            now = self._loop.time()
        self._row_ends = now + ROW
        if polls := self._due(now):
            await self._line.ask(Turn(self, polls, self, loop=self._loop, more=self._more, without=self._without))

    def _due(self, now: float) -> list[_Poll]:
        """What is to be asked now. A poll that is late is not doubled: the next one keeps to the clock."""
        polls: list[_Poll] = []
        for each in self._classes:
            if each.next <= now:
                missed = int((now - each.next) / each.period)
                self.counters["overruns"] += missed
                each.next += (missed + 1) * each.period
                polls += each.due(now)
                each.asked = True
        return polls

    def _more(self) -> list[_Poll]:
        """A poll is done. The next one, where it is late already: no task has to wake up for it."""
        for each in self._classes:
            if each.asked and each.findings:
                self._join(each)
            each.asked = False
        now = self._loop.time()
        if now > self._row_ends or not self._inlet.is_open or self._line.settings.each_poll:
            return []
        return self._due(now)

    async def close(self) -> None:
        self._line.detach(self)

    def answered(self, question: Question, payload: bytes, time_ns: int) -> None:
        assert isinstance(question, _Poll)
        self._inlet.push_registers(question.plan, payload, time_ns)
        question.silent = question.knocked = 0
        if question.status:
            question.status, question.rest, question.due = 0, 0.0, 0.0
            for each in self._classes:
                if question in each.polls and question.request.function in each.findings:
                    each.findings[question.request.function].mended()
            names = _names(question.request)
            facts = {"event": "read_accepted", "device": self.device.name}
            log.info("%s: answers again for %s", self.device.name, names, extra=facts)

    def refused(self, question: Question, code: int, time_ns: int) -> Sequence[Question]:
        assert isinstance(question, _Poll)
        question.silent = question.knocked = 0
        if code in (ILLEGAL_ADDRESS, ILLEGAL_VALUE) and len(parts := question.request.split()) > 1:
            return self._split(question, parts, f"exception {code}")
        if code in LASTING:
            self._rest(question)
        status = REFUSALS.get(code, StatusCode.BAD_COMMUNICATION_ERROR)
        if question.status != status:
            # Bad readings once for as long as the device goes on refusing in the same way.
            question.status = status
            facts = {"event": "read_refused", "device": self.device.name, "exception": code}
            names = _names(question.request)
            log.warning("%s: exception %d reading %s", self.device.name, code, names, extra=facts)
            self._push_bad(question, time_ns)
        return ()

    def _without(self, question: Question) -> Sequence[Question] | None:
        """A request got no answer, or none of its length. Some devices say nothing where others refuse: where each time
        the device is back at once and gives other answers, that is what it is taken for."""
        assert isinstance(question, _Poll)
        question.silent += 1
        if question.silent < STRIKES:
            return None
        if len(parts := question.request.split()) > 1:
            return self._split(question, parts, "no valid answer")
        self._rest(question)
        if question.status != StatusCode.BAD_TIMEOUT:
            question.status = StatusCode.BAD_TIMEOUT
            facts = {"event": "read_unanswered", "device": self.device.name}
            text = "%s: no valid answer reading %s, though it gives others; asking for it again now and then"
            log.warning(text, self.device.name, _names(question.request), extra=facts)
            self._push_bad(question, now_ns())
        others = (poll for each in self._classes for poll in each.polls)
        return () if any(not poll.status and not poll.silent for poll in others) else None

    def _rest(self, poll: _Poll) -> None:
        """Leaves it out for a while."""
        poll.rest = min(max(2 * poll.rest, FIRST_REST), LONGEST_REST)
        poll.due = self._loop.time() + poll.rest
        for each in self._classes:
            each.resting = True

    def _split(self, poll: _Poll, parts: Sequence[Request], why: str) -> Sequence[Question]:
        """One bad address refuses a whole request: halves from here on, and of these again, until it is alone.

        Then what is good is joined again around it (`_join`). What was found out is kept for as long as the collector
        lives, over reconnects.
        """
        tags, name = len(poll.request.tags), self.device.name
        facts = {"event": "request_split", "device": name}
        log.info("%s: can't read %d tags at once (%s); asking for parts", name, tags, why, extra=facts)
        made = [self._poll(part) for part in parts]
        for part in made:
            part.silent = poll.silent
        for each in self._classes:
            if poll in each.polls:
                at = each.polls.index(poll)
                each.polls[at : at + 1] = made
                each.findings.setdefault(poll.request.function, Findings()).cut(poll.request, parts)
        return made

    def _join(self, some: _Class) -> None:
        """Reads around what was found to be refused, in the fewest requests."""
        for function, findings in some.findings.items():
            polls = [poll for poll in some.polls if poll.request.function == function]
            if any(poll.status and not poll.due for poll in polls):
                continue  # it failed for a reason that will pass: what it says of its registers is not known yet
            bad = [poll for poll in polls if poll.status]
            good = [poll.request for poll in polls if not poll.status]
            plan = findings.plan(good, [poll.request for poll in bad], self.device.limits)
            if plan is None:
                continue
            joined = [self._poll(request) for request in plan]
            some.polls = [*(poll for poll in some.polls if poll.request.function != function), *joined, *bad]
            facts = {"event": "requests_joined", "device": self.device.name}
            log.info("%s: reading what it has in %d requests", self.device.name, len(joined), extra=facts)

    def _push_bad(self, poll: _Poll, time_ns: int) -> None:
        self._inlet.push([(tag.index, time_ns, None, poll.status) for tag in poll.request.tags])


class _Knock:
    """Only wants to know whether there is an answer; a refusal is one."""

    def answered(self, question: Question, payload: bytes, time_ns: int) -> None:  # noqa: ARG002
        return

    def refused(self, question: Question, code: int, time_ns: int) -> Sequence[Question]:  # noqa: ARG002
        return ()


def _names(request: Request) -> str:
    return ", ".join(f"{tag.name} ({tag.address})" for tag in request.tags)
