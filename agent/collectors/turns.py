"""Who may ask next on a line: every unit in turn, one request at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.collectors.frames import Question


class Member(Protocol):
    """A device on a line."""

    unit: int
    timeout: float
    """Seconds from a request to the end of its answer, without what sending takes on a serial line."""
    late: float
    """The longest time after its time-out, in seconds, that an answer may still come."""
    tries: int
    """How often a request is sent before its device counts as lost."""
    counters: dict[str, int]


class Receiver(Protocol):
    """Who gets the answers, within the very call that heard them: neither call may block."""

    def answered(self, question: Question, payload: bytes, time_ns: int) -> None:
        """`payload` is exactly `question.size` bytes; `time_ns` the middle between request and answer, UTC."""

    def refused(self, question: Question, code: int, time_ns: int) -> Sequence[Question]:
        """The device answered with an exception (V1.1b3, 7). Returns what to ask next instead."""


def _needed(question: Question) -> None:
    """No question can be done without."""


class Turn:
    """What one device asks at once. `done` is set when all of it is answered, or fails with NotConnected."""

    __slots__ = (
        "done",
        "failures",
        "flying",
        "member",
        "more",
        "questions",
        "queued",
        "receiver",
        "timeout",
        "tries",
        "without",
    )

    def __init__(
        self,
        member: Member,
        questions: Iterable[Question],
        receiver: Receiver,
        *,
        timeout: float | None = None,
        tries: int | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        more: Callable[[], Iterable[Question]] = tuple,
        without: Callable[[Question], Sequence[Question] | None] = _needed,
    ) -> None:
        self.member = member
        self.questions = deque(questions)
        self.receiver = receiver
        self.timeout = member.timeout if timeout is None else timeout
        self.tries = member.tries if tries is None else tries
        self.more = more
        """What to ask next when all is answered; the turn ends where that is nothing."""
        self.without = without
        """What to ask instead of a question that got no valid answer in `tries`; None: without it the turn fails."""
        self.flying = 0
        self.queued = False
        self.failures: dict[Question, float] = {}
        """Tries in vain."""
        self.done: asyncio.Future[None] = (loop or asyncio.get_running_loop()).create_future()

    @property
    def over(self) -> bool:
        return self.done.done()

    def fail(self, reason: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(reason)

    def take(self, question: Question, payload: bytes, time_ns: int) -> None:
        """Gives an answer on. The last one ends the turn; a mistake of the receiver's is its own."""
        try:
            self.receiver.answered(question, payload, time_ns)
            self._settle()
        except Exception as reason:
            self.fail(reason)

    def refuse(self, question: Question, code: int, time_ns: int) -> None:
        """Gives an exception on. What is to be asked instead comes first."""
        try:
            self.questions.extendleft(reversed(self.receiver.refused(question, code, time_ns)))
            self._settle()
        except Exception as reason:
            self.fail(reason)

    def give_up(self, question: Question, reason: Exception) -> None:
        """A question is not asked again. What is to be asked instead comes first."""
        try:
            instead = self.without(question)
            if instead is None:
                self.fail(reason)
                return
            self.questions.extendleft(reversed(instead))
            self._settle()
        except Exception as mistake:
            self.fail(mistake)

    def _settle(self) -> None:
        if not self.flying and not self.questions and not self.done.done():
            self.failures.clear()
            self.questions.extend(self.more())
            if not self.questions:
                self.done.set_result(None)


@dataclass(slots=True, eq=False)
class Flight:
    """A request on its way. `sent` is by `perf_counter_ns`, `deadline` by the loop's clock in seconds."""

    question: Question
    turn: Turn
    sent: int
    deadline: float


class Turns:
    """The turns that have something to ask, in a ring: each asks one question and goes to the end."""

    def __init__(self) -> None:
        self._ring: deque[Turn] = deque()
        self._not_before: dict[int, float] = {}
        self.next_at = 0.0
        """After `take` gave nothing although turns wait: when to ask again, by the clock of its `now`."""

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, turn: Turn) -> None:
        """Puts a turn that has questions at the end, unless it is in the ring already."""
        if not turn.queued and turn.questions and not turn.over:
            turn.queued = True
            self._ring.append(turn)

    def give_back(self, flight: Flight) -> None:
        """What was asked in vain is asked again, before the other questions of its turn."""
        flight.turn.flying -= 1
        flight.turn.questions.appendleft(flight.question)
        self.add(flight.turn)

    def rest(self, unit: int, until: float) -> None:
        """Nothing is asked of `unit` before `until`."""
        self._not_before[unit] = max(until, self._not_before.get(unit, 0.0))

    def resting(self, unit: int, now: float) -> bool:
        return self._not_before.get(unit, 0.0) > now

    def rests_until(self) -> float:
        """When the last unit may be asked again."""
        return max(self._not_before.values(), default=0.0)

    def take(self, now: float) -> tuple[Turn, Question] | None:
        """The next question whose unit may be asked."""
        self.next_at = 0.0
        for _ in range(len(self._ring)):
            turn = self._ring.popleft()
            if turn.over:
                turn.queued = False
                continue
            if self._not_before:
                until = self._not_before.get(turn.member.unit, 0.0)
                if until > now:
                    self.next_at = min(until, self.next_at or until)
                    self._ring.append(turn)
                    continue
                self._not_before.pop(turn.member.unit, None)
            question = turn.questions.popleft()
            if turn.questions:
                self._ring.append(turn)
            else:
                turn.queued = False
            return turn, question
        return None

    def clear(self) -> list[Turn]:
        """Takes all turns out."""
        turns, self._ring = list(self._ring), deque()
        for turn in turns:
            turn.queued = False
        return turns
