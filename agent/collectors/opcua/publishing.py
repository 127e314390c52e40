"""The PublishRequests of one subscription (OPC 10000-4, 5.14.5).

Several wait at the server at any time. An answer goes to the core undecoded, in the order of its sequence number: what
is missing is asked for with Republish first, and what the server no longer has is a gap. An answer is acknowledged,
with the next request, only when the outbox has committed it: until then the server keeps it for whoever comes next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from asyncua import ua
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import (
    BadEncodingLimitsExceeded,
    BadMessageNotAvailable,
    BadNoSubscription,
    BadResponseTooLarge,
    BadServiceUnsupported,
    BadSubscriptionIdInvalid,
    BadTcpMessageTooLarge,
    BadTimeout,
    BadTooManyPublishRequests,
    UaStatusCodeError,
)

from agent._native import Published, publish_header
from agent.clock import now_ns
from agent.collectors.base import Inlet
from agent.collectors.opcua.history import History
from agent.collectors.opcua.link import FAULTS, Body, Link, said
from agent.collectors.opcua.memory import LAST, Memory, after, ahead
from agent.config import OpcUaDevice
from agent.errors import NotConnected

log = logging.getLogger("headrace.collector")

MOST_ACKNOWLEDGED = 1000
"""Acknowledgements in one request."""
MOST_REPUBLISHED = 10_000
"""Missing notifications that are asked for one by one; of more, only those that the server says it has."""
TOO_LARGE = (BadResponseTooLarge, BadEncodingLimitsExceeded, BadTcpMessageTooLarge)
"""What a server says of a notification that it can't send, also where it gives up in the middle of it."""
SILENCE = 1.5
"""Keep-alive intervals without a word after which the subscription counts as dead."""
TOO_MANY = "structures and other values that are decoded slowly: more than 1,000 or 256 KiB in one answer"


class SubscriptionLost(NotConnected):
    """The server does not have the subscription any more."""


class Publisher:
    """Takes what one subscription publishes, for as long as its connection lasts."""

    def __init__(
        self,
        device: OpcUaDevice,
        inlet: Inlet,
        memory: Memory,
        counters: dict[str, int],
        leftover: Callable[[Published, int], None],
        *,
        history: History | None = None,
    ) -> None:
        self._device = device
        self._inlet = inlet
        self._memory = memory
        self._counters = counters
        self._history = history
        self._leftover = leftover
        """Called with what the core could not decode, and with the receive time."""
        self._link: Link
        self._core = 0
        self._wanted = device.publish_requests
        self._waiting = 0
        self._arrived: deque[tuple[Body, Sequence[int]]] = deque()
        """Answers, each with what its request acknowledged."""
        self._wake = asyncio.Event()
        self._heard = 0.0
        # What is pushed and not committed; committed and not acknowledged; acknowledged, and not yet seen gone.
        self._pushed: deque[int] = deque()
        self._committed: list[int] = []
        self._told: set[int] = set()
        self._commit: asyncio.Task[None] | None = None

    @property
    def silence(self) -> float:
        """Seconds without notification and keep-alive that are a fault."""
        return SILENCE * self._memory.keep_alive

    def begin(self, link: Link, core: int) -> None:
        """Binds it to a connection; `core` is the inlet's number of the subscription."""
        self._link, self._core = link, core
        self._wanted, self._waiting = self._device.publish_requests, 0
        self._arrived, self._wake = deque(), asyncio.Event()
        self._told.clear()

    def forget(self) -> None:
        """Lets go of what belongs to a subscription that is gone."""
        # Whoever waits for its commits keeps the old list: what is pushed from here on is another subscription's.
        self._pushed = deque()
        self._committed.clear()

    async def catch_up(self) -> None:
        """Asks for everything since the last notification that was pushed, until the server has no more of it.

        Raises SubscriptionLost, and FAULTS.
        """
        while await self._republish(after(self._memory.sequence)):
            pass

    async def run(self) -> None:
        """Publishes until something breaks. Raises NotConnected or SubscriptionLost with the reason, or FAULTS."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        while True:
            await self._room()
            self._ask()
            await self._take(*await self._next())

    async def _room(self) -> None:
        """Waits until readings may be taken. No PublishRequest is sent meanwhile, so the server queues; a call that
        names the subscription keeps it and the session alive (OPC 10000-4, 5.14.1.2)."""
        while True:
            try:
                async with asyncio.timeout(self._memory.keep_alive):
                    return await self._inlet.room()
            except TimeoutError:
                request = ua.SetPublishingModeRequest()
                request.Parameters.PublishingEnabled = True
                request.Parameters.SubscriptionIds = [self._memory.subscription]
                await self._link.ask(request, ua.SetPublishingModeResponse)
                self._counters["withheld"] += 1
                self._heard = asyncio.get_running_loop().time()

    def _ask(self) -> None:
        while self._waiting < self._wanted:
            known, self._committed = self._committed[:MOST_ACKNOWLEDGED], self._committed[MOST_ACKNOWLEDGED:]
            self._told.update(known)
            request = ua.PublishRequest()
            request.Parameters.SubscriptionAcknowledgements = [
                ua.SubscriptionAcknowledgement(self._memory.subscription, sequence) for sequence in known
            ]
            future = self._link.send(request)
            self._waiting += 1
            # Called in the order of arrival, which `asyncio.wait` would not keep.
            future.add_done_callback(partial(self._arrive, known))

    def _arrive(self, known: Sequence[int], future: Body) -> None:
        if not future.cancelled():
            future.exception()  # so that it counts as retrieved, also where nobody waits any more
        self._arrived.append((future, known))
        self._wake.set()

    async def _next(self) -> tuple[Body, Sequence[int]]:
        loop = asyncio.get_running_loop()
        while not self._arrived:
            left = self._heard + self.silence - loop.time()
            if left <= 0:
                raise NotConnected(f"no notification and no keep-alive for {self.silence:.1f} s")
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                continue
        self._waiting -= 1
        return self._arrived.popleft()

    async def _take(self, future: Body, known: Sequence[int]) -> None:
        try:
            body = bytes(self._link.answer(future))
        except BadTooManyPublishRequests:
            self._wanted = max(1, self._waiting)
            self._counters["publish_requests"] = self._wanted
            await self._refused(known)
            return
        except BadTimeout:  # the server let go of the request, not of the subscription
            await self._refused(known)
            return
        except TOO_LARGE:  # its number will be missing; there is no other way to have it, and so a gap
            self._counters["too_large"] += 1
            self._heard = asyncio.get_running_loop().time()
            self._untell(known)
            return
        except (BadNoSubscription, BadSubscriptionIdInvalid) as reason:
            raise SubscriptionLost(said(reason)) from reason
        self._heard = asyncio.get_running_loop().time()
        try:
            header = publish_header(body)
        except ValueError as reason:
            raise NotConnected(f"a PublishResponse that can't be read: {reason}") from reason
        if header.service_result & 0x8000_0000:
            raise NotConnected(f"publishing failed with status 0x{header.service_result:08X}")
        if header.subscription_id != self._memory.subscription:
            await self._drop(header.subscription_id)
            return
        self._counters["publishes"] += 1
        published_ns = header.publish_time_ns or header.sent_ns or now_ns()
        steps = ahead(header.sequence, after(self._memory.sequence))
        if steps > 0:
            await self._fill(steps, header.available)
        if header.keep_alive:
            # Its number is that of the notification to come: everything before it is here, or known to be missing.
            self._skip_to(header.sequence, published_ns)
            self._memory.clean_ns = published_ns
        elif steps >= 0:
            self._push(body, header.sequence, published_ns, more=header.more)
        else:
            self._counters["repeated"] += 1
        self._acknowledge_again(header.available)

    async def _drop(self, subscription: int) -> None:
        """Ends another subscription of our session: left over from a run that was killed before it could note it."""
        self._counters["strangers"] += 1
        request = ua.DeleteSubscriptionsRequest()
        request.Parameters.SubscriptionIds = [subscription]
        with contextlib.suppress(UaStatusCodeError):
            await self._link.ask(request, ua.DeleteSubscriptionsResponse)

    async def _fill(self, steps: int, available: Iterable[int]) -> None:
        """Asks for the next notifications, which did not come: `steps` of them."""
        first = after(self._memory.sequence)
        if steps <= MOST_REPUBLISHED:
            wanted = [(first + step - 1) % LAST + 1 for step in range(steps)]
        else:
            wanted = sorted(
                (each for each in available if 0 <= ahead(each, first) < steps), key=lambda n: ahead(n, first)
            )
        for each in wanted:
            await self._republish(each)

    def _skip_to(self, sequence: int, until_ns: int) -> None:
        """What lies before `sequence` and was not pushed is missing. The gap is told in the same moment in which the
        place moves past it: a crash in between hides nothing."""
        memory = self._memory
        missing = ahead(sequence, after(memory.sequence))
        if missing <= 0:
            return
        self._counters["missing"] += missing
        reason = f"{self._device.name}: notifications that the server no longer had"
        self._inlet.lost(min(memory.clean_ns or until_ns, until_ns), until_ns, -1, reason)
        memory.sequence = (sequence - 2) % LAST + 1
        self._inlet.mark(place_of(self._device), memory.place)

    def _untell(self, known: Sequence[int]) -> None:
        """A request that failed has acknowledged nothing."""
        self._told.difference_update(known)
        self._committed[:0] = known

    async def _refused(self, known: Sequence[int]) -> None:
        """A server that has taken none is not asked again at once."""
        self._untell(known)
        if not self._waiting:
            await asyncio.sleep(min(max(self._memory.interval, 0.1), 1.0))

    async def _republish(self, sequence: int) -> bool:
        """Pushes one notification that the server still has; False where it has not."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = self._memory.subscription
        request.Parameters.RetransmitSequenceNumber = sequence
        try:
            body = bytes(await self._link.raw(request))
            header = publish_header(body)
            ua.StatusCode(ua.UInt32(header.service_result)).check()
        except (BadMessageNotAvailable, BadServiceUnsupported, *TOO_LARGE):
            return False
        except BadSubscriptionIdInvalid as reason:
            raise SubscriptionLost(said(reason)) from reason
        if header.sequence != sequence:  # asyncua's server has an empty message, and no error, for what is gone
            return False
        self._heard = asyncio.get_running_loop().time()
        self._counters["republished"] += 1
        self._push(body, sequence, header.publish_time_ns or header.sent_ns or now_ns(), more=True)
        return True

    def _push(self, body: bytes, sequence: int, published_ns: int, *, more: bool) -> None:
        self._skip_to(sequence, published_ns)
        received_ns = now_ns()
        try:
            found = self._inlet.push_publish(self._core, body, received_ns)
        except ValueError as reason:
            self._unreadable(reason, published_ns)
            found = None
        if found is None:
            pass
        elif found.status is not None and found.status & 0x8000_0000:
            raise SubscriptionLost(f"the server ended the subscription: {ua.StatusCode(ua.UInt32(found.status)).name}")
        else:
            self._look_at(found, received_ns, published_ns)
        self._memory.sequence = sequence
        if not more:
            self._memory.was_clean(published_ns, found.newest_ns if found is not None else None)
        self._inlet.mark(place_of(self._device), self._memory.place)
        if self._history is not None:
            self._history.know(self._memory.clean_ns)
        self._pushed.append(sequence)
        if self._commit is None:
            self._commit = asyncio.create_task(self._committing(), name=f"opc ua commits {self._device.name}")

    def _unreadable(self, reason: ValueError, published_ns: int) -> None:
        """One bad notification is a gap. To ask for it once more would bring the same bytes, for ever."""
        self._counters["missing"] += 1
        since = self._memory.clean_ns or published_ns
        self._inlet.lost(since, published_ns, -1, f"{self._device.name}: a notification that can't be read: {reason}")

    def _look_at(self, found: Published, received_ns: int, published_ns: int) -> None:
        self._counters["repeated_values"] += found.repeated
        begun = self._history.first(found.begun) if found.begun and self._history is not None else set[int]()
        if found.overflows:
            self._counters["overflows"] += len(found.overflows)
            since, why = self._memory.clean_ns or published_ns, f"{self._device.name}: the server's queues overflowed"
            if self._history is None:
                self._inlet.lost(since, published_ns, -1, why)
            elif missed := [each for each in found.missed if each[0] not in begun]:
                self._history.add(min(since, published_ns), published_ns, why, missed)
        if found.dropped:
            self._counters["undecoded_dropped"] += found.dropped
            why = f"{self._device.name}: {TOO_MANY}"
            self._inlet.lost(self._memory.clean_ns or published_ns, published_ns, found.dropped, why)
        if found.undecoded or found.unknown_handles or found.others:
            self._leftover(found, received_ns)

    async def _committing(self) -> None:
        """One wait for all that was pushed until now; what is pushed meanwhile waits for the next."""
        while pushed := self._pushed:
            through = pushed[-1]
            await self._inlet.durable()
            while pushed is self._pushed and pushed:  # another list where the subscription was lost meanwhile
                self._committed.append(sequence := pushed.popleft())
                if sequence == through:
                    break
        self._commit = None

    def _acknowledge_again(self, available: Iterable[int]) -> None:
        """What the server still keeps although it was committed: its acknowledgement went down with a connection."""
        there = set(available)
        self._told &= there
        kept = self._told.union(self._committed, self._pushed)
        old = [each for each in there - kept if ahead(each, self._memory.sequence) <= 0]
        self._committed += old


def mark_of(device: OpcUaDevice) -> str:
    """The name of its mark."""
    return f"opcua/{device.name}"


def place_of(device: OpcUaDevice) -> str:
    """The name of the mark of its place."""
    return f"opcua/{device.name}/place"


def is_unsupported(reason: BaseException) -> bool:
    """Whether a server says that it has no such service."""
    return isinstance(reason, UaStatusCodeError) and reason.code in (
        StatusCodes.BadServiceUnsupported,
        StatusCodes.BadNotImplemented,
        StatusCodes.BadNotSupported,
    )


__all__ = ["FAULTS", "Publisher", "SubscriptionLost", "is_unsupported", "mark_of", "place_of"]
