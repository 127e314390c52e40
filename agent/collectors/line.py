"""One bus: a connection or a serial port, and the only one who speaks on it.

The requests of all units go through one fair queue (`Turns`). An answer is given on only if it is one to a question
that is open now, by unit, function code, byte count and, where the framing has one, transaction id.

Serial framing has no transaction id: a late answer to an earlier request of the same kind looks exactly like the
awaited one, also through a TCP gateway and over a new connection to it. Only silence protects:

- A unit that did not answer in time is not asked again before its answer can no longer come (`late`). Meanwhile other
  units are: what the first one then says names it, and makes the line dirty.
- Where anything else came than the one awaited frame, the line is dirty: whatever arrives is thrown away until nothing
  has arrived for the longest `late` of all units. A request that was under way is asked again after that.
- A line that was left while it was dirty, and one that is opened for the first time, begins dirty.
"""

from __future__ import annotations

import asyncio
import time

from agent.clock import now_ns
from agent.collectors.alarm import Alarm
from agent.collectors.carrier import open_wire
from agent.collectors.connection import Connection, Opener
from agent.collectors.frames import Discard, Found, Frame, Malformed, framer
from agent.collectors.transactions import Transactions
from agent.collectors.turns import Flight, Member, Turn, Turns
from agent.endpoint import LineSettings
from agent.errors import NotConnected

BUSY = (5, 6)
"""Exceptions "acknowledge" and "device busy": ask again later (V1.1b3, 7)."""
BUSY_PAUSE = 0.1  # seconds
GATEWAY = (10, 11)
"""Exceptions of a gateway whose unit did not answer: to us the same as a time-out."""
MUTE = 4
"""Time-outs in a row, of all units together and at least two of each, after which the connection counts as lost."""
NOISE = 20.0
"""How many times the longest silence a line may stay dirty before it counts as lost."""
TAKEN_LATE = 0.1
"""Seconds after its deadline at which an answer may be taken up: its reading's time is off by half of that more."""
DISTURBED = 8
"""How many answers spoilt by other units count as one try in vain."""


class Line:
    """Shared by the devices with one URL. All calls come from one event loop."""

    def __init__(self, settings: LineSettings, opener: Opener = open_wire) -> None:
        self.settings = settings
        self._ordered = settings.ordered
        self._most = 1 if self._ordered else settings.pipeline
        self._gap = settings.gap
        self._any_unit = settings.any_unit_id
        self._framer = framer(settings.endpoints[0].framing)
        self._connection = Connection(settings, self, opener)
        self._members: list[Member] = []
        self._last: Member | None = None
        self._silence = self._patience = 1.0
        self._turns = Turns()
        self._flights: dict[int, Flight] = {}
        self._transactions = Transactions()
        self._echo = b""
        self._clean = not self._ordered
        self._dirty = False
        self._dirty_since = 0.0
        self._quiet_until = 0.0
        self._mute = 0
        self._loop: asyncio.AbstractEventLoop
        self._alarm: Alarm

    def attach(self, member: Member) -> None:
        """Says that a device will ask. The first `ask` opens the line."""
        if not self._members:
            # Kept: to ask for the running loop is a system call each time (CPython 3.11), and a request needs it often.
            self._loop = asyncio.get_running_loop()
            self._alarm = Alarm(self._loop, self._tick)
        if member not in self._members:
            self._members.append(member)
            self._reckon()

    def detach(self, member: Member) -> None:
        """The last one to go closes the line. Harmless where it is not attached."""
        if member not in self._members:
            return
        self._members.remove(member)
        self._reckon()
        if not self._members:
            self._leave("no device is left on the line")
            self._connection.close()
            self._alarm.cancel()

    def _reckon(self) -> None:
        self._silence = max((each.late for each in self._members), default=1.0)
        self._patience = max((each.timeout for each in self._members), default=1.0)

    async def ask(self, turn: Turn) -> None:
        """Returns when every question of `turn` is answered. Raises NotConnected; what was answered until then counts.

        May be cancelled: what is under way is awaited by the line, and thrown away.
        """
        self._turns.add(turn)
        if self._connection.wire is not None:
            self._connection.look_back(self._patience)
            self._pump()
        else:
            # One device alone has its supervisor's pauses; of many, each would try in every pause of the others.
            self._connection.open(self._patience, patiently=len(self._members) > 1)
        await turn.done
        if self.settings.each_poll and not self._turns and not self._flights:
            self._leave("closed after a poll")

    def opened(self) -> None:
        now = self._loop.time()
        self._framer.reset()
        self._transactions.forget()
        self._echo = b""
        self._mute = 0
        self._quiet_until = max(self._quiet_until, now + self.settings.connect_pause)
        self._dirty = not self._clean
        if self._dirty:
            self._dirty_since, self._quiet_until = now, max(self._quiet_until, now + self._silence)
        self._pump()

    def unreachable(self, reason: str) -> None:
        for turn in self._turns.clear():
            turn.fail(NotConnected(reason))

    def lost(self, reason: str) -> None:
        if self._connection.trial:
            self._trial_failed()
            return
        asked = [flight for flight in self._flights.values() if not flight.turn.over]
        self._leave(reason)
        if len(asked) == 1:
            # Some devices hang up where others refuse. This turn has failed; the next one may ask something else.
            asked[0].turn.without(asked[0].question)

    def heard(self, chunk: bytes) -> None:
        if self._dirty:
            self._noise()
            return
        if self._echo:
            size = min(len(self._echo), len(chunk))
            if chunk[:size] != self._echo[:size]:
                self._soil(Discard.FOREIGN, "not the echo of the request")
                return
            self._echo, chunk = self._echo[size:], chunk[size:]
            if not chunk:
                return
        if self._ordered:
            self._in_order(chunk)
        else:
            self._by_transaction(chunk)

    def _leave(self, reason: str) -> None:
        """Closes the wire. Whoever waits for an answer on it has lost it."""
        flights = self._abandon()
        self._connection.drop()
        for turn in (*(flight.turn for flight in flights), *self._turns.clear()):
            turn.fail(NotConnected(reason))

    def _abandon(self) -> list[Flight]:
        """Takes out what is under way, on a wire that is given up. On a serial line its answers may still come."""
        flights, self._flights = list(self._flights.values()), {}
        for flight in flights:
            self._owe(flight)
        self._dirty, self._echo = False, b""
        return flights

    def _owe(self, flight: Flight) -> None:
        """Sees to it that the unit is not asked while it may still answer what it was asked."""
        if self._ordered:
            self._clean = False
            self._turns.rest(flight.question.unit, flight.deadline + flight.turn.member.late)

    def _trial_failed(self) -> None:
        """The first endpoint took the connection and does not answer: its devices need not know."""
        for flight in self._abandon():
            self._turns.give_back(flight)
        self._connection.return_to_backup(self._patience)

    def _pump(self) -> None:
        """Sends what may be sent now."""
        wire = self._connection.wire
        if wire is None:
            return
        now = self._loop.time()
        if self._dirty or now < self._quiet_until:
            self._alarm.by(self._quiet_until)
            return
        if self._connection.spare:
            if not self._flights:  # where there are, the last of them pumps again
                self._connection.swap()
                self._alarm.by(now)
            return
        while len(self._flights) < self._most:
            taken = self._turns.take(now)
            if taken is None:
                if self._turns.next_at:
                    self._alarm.by(self._turns.next_at)
                return
            turn, question = taken
            transaction = self._transactions.next()
            frame = self._framer.wrap(question.unit, question.pdu, transaction)
            deadline = now + turn.timeout + self._connection.travel(len(frame) + question.size)
            self._flights[transaction] = Flight(question, turn, time.perf_counter_ns(), deadline)
            turn.flying += 1
            self._last = turn.member
            turn.member.counters["requests"] += 1
            if self.settings.echo:
                self._echo = frame
            self._alarm.by(deadline)
            wire.send(frame)

    def _tick(self) -> None:
        now = self._loop.time()
        for transaction, flight in list(self._flights.items()):
            if flight.deadline <= now and self._flights.pop(transaction, None) is not None:
                self._time_out(transaction, flight)
        if self._dirty and now >= self._quiet_until:
            self._dirty, self._clean = False, True
            self._framer.reset()
        self._pump()
        if self._flights:
            self._alarm.by(min(flight.deadline for flight in self._flights.values()))

    def _time_out(self, transaction: int, flight: Flight) -> None:
        member = flight.turn.member
        member.counters["timeouts"] += 1
        self._mute += 1
        if self._connection.trial:
            self._flights[transaction] = flight
            self._trial_failed()
            return
        why = f"no answer from unit {flight.question.unit} within {flight.turn.timeout:g} s"
        if not self._ordered:
            self._transactions.over(transaction, Discard.LATE)
            self._fail(flight, why)
            if self._framer.pending and not self._connection.datagrams:
                # The next answer would fill what is missing of this one.
                self._count(Discard.SHORT, flight)
                self.lost(f"unit {flight.question.unit} gave an answer that was cut short")
                return
        elif self._framer.pending:
            self._flights[transaction] = flight
            self._soil(Discard.SHORT, "an answer that was cut short")
        elif self._any_unit:
            # Its late answer could not be told from that of any other unit: nobody is asked until it can't come.
            self._owe(flight)
            self._quieten()
            self._fail(flight, why)
        else:
            self._owe(flight)
            self._echo = b""
            self._fail(flight, why)
        if self._mute >= max(MUTE, 2 * len(self._members)):
            self._leave("no unit on the line answers")

    def _noise(self) -> None:
        """What comes on a dirty line is nobody's. It only puts off the time when the line is clean."""
        now = self._loop.time()
        self._quiet_until = max(self._quiet_until, now + self._silence)
        if now - self._dirty_since > NOISE * self._silence:
            self._leave("the line is never silent")

    def _by_transaction(self, chunk: bytes) -> None:
        if not self._framer.pending:
            found = self._framer.feed(chunk)
            if len(found) == 1 and not self._framer.pending and isinstance(found[0], Frame):
                self._answer(found[0])  # as almost always: what came is one frame, and nothing else
                self._pump()
                return
            patched = False
        else:
            self._transactions.went_on(chunk)
            found = self._framer.feed(chunk)
            first = found[0] if found else None
            patched = isinstance(first, Frame) and self._transactions.patched(first.pdu, self._flights)
        if (wrong := self._disorder(found)) is not None:
            # An answer right before it may be one that was cut, and filled with what is not its own.
            self._count(wrong, None)
            if not self._connection.datagrams:
                self.lost("the device sent what is no Modbus TCP frame, or more than an answer")
                return
            self._framer.reset()
            found = []
        wire = self._connection.wire
        for each in found:
            if self._connection.wire is not wire or isinstance(each, Malformed):
                return  # an answer before this one made someone give up the connection
            self._answer(each, patched=patched and each is found[0])
        self._pump()

    def _answer(self, frame: Frame, *, patched: bool = False) -> None:
        """Gives a frame to whoever waits for its transaction."""
        flight = self._flights.pop(frame.transaction, None)
        if flight is None:
            self._count(self._transactions.kind(frame.transaction), None)
            return
        self._transactions.over(frame.transaction, Discard.DOUBLED)
        verdict = Discard.SHORT if patched else flight.question.judge(frame, any_unit=self._any_unit)
        if isinstance(verdict, Discard):
            self._count(verdict, flight)
            self._fail(flight, f"unit {flight.question.unit} gave a {verdict} answer")
        else:
            if self._gap:
                self._quiet_until = max(self._quiet_until, self._loop.time() + self._gap)
            self._deliver(flight, verdict)

    def _disorder(self, found: Found) -> Discard | None:
        """What is wrong with the stream, now that all of a chunk was taken apart; None where it is in order."""
        if found and isinstance(found[-1], Malformed):
            return Discard.MALFORMED
        if not self._framer.pending:
            return None
        if self._connection.datagrams:
            return Discard.SHORT  # what is left of a datagram does not go on in the next
        came = {each.transaction for each in found if isinstance(each, Frame)}
        return None if self._flights.keys() - came else Discard.LONG  # nobody waits for what has begun

    def _in_order(self, chunk: bytes) -> None:
        flight = next(iter(self._flights.values()), None)
        found = self._framer.feed(chunk)
        if flight is None:
            self._soil(self._stray(found[0] if found else None), "what nobody asked for")
            return
        if not found:
            return
        first = found[0]
        if isinstance(first, Malformed):
            self._soil(Discard.MALFORMED, first.why)
            return
        verdict = flight.question.judge(first, any_unit=self._any_unit)
        misfit = verdict in (Discard.SHORT, Discard.LONG, Discard.WRONG)
        if verdict is Discard.FOREIGN:
            verdict = self._stray(first)
        elif not isinstance(verdict, Discard) and (len(found) > 1 or self._framer.pending):
            verdict = Discard.DOUBLED if len(found) > 1 else Discard.LONG
        if isinstance(verdict, Discard):
            self._soil(verdict, f"a {verdict} answer", misfit=misfit)
            return
        self._flights.clear()
        now = self._loop.time()
        self._quiet_until = max(self._quiet_until, now + self._gap)
        self._clean = now >= self._turns.rests_until()  # a unit that was late may still speak
        self._deliver(flight, verdict)
        self._pump()

    def _stray(self, found: Frame | Malformed | None) -> Discard:
        """What came is of a unit that is not being asked: what it most likely is."""
        if not isinstance(found, Frame) or self._last is None:
            return Discard.FOREIGN
        if self._turns.resting(found.unit, self._loop.time()):
            return Discard.LATE
        return Discard.DOUBLED if found.unit == self._last.unit else Discard.FOREIGN

    def _soil(self, kind: Discard, why: str, *, misfit: bool = False) -> None:
        """The line is dirty from now on, and what was under way is lost. `misfit`: by an answer, and not by noise."""
        flight = next(iter(self._flights.values()), None)
        self._count(kind, flight)
        self._framer.reset()
        self._flights.clear()
        self._quieten()
        if flight is not None:
            self._owe(flight)
            # Another unit's noise is not this one's failure, as long as it does not go on and on.
            cost = 1 / DISTURBED if kind in (Discard.LATE, Discard.FOREIGN) else 1
            self._fail(flight, f"unit {flight.question.unit} gave {why}", cost, noise=not misfit)
        self._pump()

    def _quieten(self) -> None:
        """Whatever comes is thrown away, and nothing is asked, until there was silence."""
        now = self._loop.time()
        self._dirty, self._dirty_since, self._echo = True, now, b""
        self._clean = False
        self._quiet_until = max(self._quiet_until, now + self._silence)

    def _fail(self, flight: Flight, why: str, cost: float = 1, *, noise: bool = False) -> None:
        """One try was in vain. `noise` says nothing of what was asked."""
        turn, question = flight.turn, flight.question
        tries = turn.failures[question] = turn.failures.get(question, 0) + cost
        if tries < turn.tries:
            self._turns.give_back(flight)
            return
        turn.flying -= 1
        if noise:
            turn.fail(NotConnected(why))
        elif not turn.over:
            turn.give_up(question, NotConnected(why))
            self._turns.add(turn)

    def _deliver(self, flight: Flight, verdict: bytes | int) -> None:
        turn, question = flight.turn, flight.question
        time_ns = now_ns() - (time.perf_counter_ns() - flight.sent) // 2
        self._mute = 0
        if self._loop.time() > flight.deadline + TAKEN_LATE:
            # It came in time, perhaps, and this program stood still: nobody can say any more when it was true.
            self._connection.answered()
            self._count(Discard.LATE, flight)
            self._fail(flight, f"the answer of unit {question.unit} was taken up too late: this machine was held up")
            return
        if isinstance(verdict, bytes):
            self._connection.answered()
            turn.flying -= 1
            if not turn.over:
                turn.take(question, verdict, time_ns)
                self._turns.add(turn)
            return
        turn.member.counters["exceptions"] += 1
        if verdict in GATEWAY:
            self._fail(flight, f"the gateway gets no answer from unit {question.unit} (exception {verdict})")
            return
        self._connection.answered()
        if verdict in BUSY and turn.failures.get(question, 0) + 1 < turn.tries:
            self._turns.rest(question.unit, self._loop.time() + BUSY_PAUSE)
            self._fail(flight, "the device is busy")
            return
        turn.flying -= 1
        if not turn.over:
            turn.refuse(question, verdict, time_ns)
            self._turns.add(turn)

    def _count(self, kind: Discard, flight: Flight | None) -> None:
        """Counts a discarded response at the device that is being asked, or was last."""
        member = flight.turn.member if flight is not None else self._last
        if member is not None:
            member.counters["discarded"] += 1
            member.counters[f"discarded_{kind}"] += 1
