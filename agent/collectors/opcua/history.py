"""What is missing, read from the server's history (OPC 10000-11, 6.4.3: ReadRaw), beside the live values.

A hole is what would be a gap. It is kept as a mark until it is filled, or told of as a gap for what the history could
not give: so a crash in between hides nothing, and doubles nothing, for the mark goes with the readings.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaStatusCodeError

from agent.collectors.base import Inlet
from agent.collectors.opcua.items import Items, Server
from agent.collectors.opcua.link import EPOCH, FAULTS, Link, said
from agent.collectors.opcua.reads import chunks, read_request
from agent.config import OpcUaDevice

log = logging.getLogger("headrace.collector")

SECOND = 1_000_000_000
NODES = 50
"""Of one request."""
VALUES = 10_000
"""Of one answer, of all its nodes."""
MOST_SPANS = 10_000
"""Of all holes: what is more is a gap."""
LATE = 10.0
"""Seconds that a history may be behind the live values, and that the first of these may take."""
PATIENCE = 600.0
"""Seconds for one hole."""
TRIES = 5
"""Attempts at one hole, where a request is not answered or the connection breaks."""
BACK = 10 * SECOND
"""How much earlier than the hole is asked for, so that what is known shows that the history goes on from there."""
FURTHER = 24 * 3600 * SECOND
NOT_KNOWN = -(2**63)
_NO_POINT = (StatusCodes.BadNoContinuationPoints, StatusCodes.BadContinuationPointInvalid)
_HISTORY_READ = 0x04  # of AccessLevel (OPC 10000-3, 8.57)

Missing = tuple[int, int, int]
"""A tag, and the times in ns of the values that are known before and after what is missing of it."""


@dataclass(slots=True)
class Span:
    """What is missing of one tag. `from_ns` follows what was read, `known_ns` stays where it began."""

    tag: int
    known_ns: int
    from_ns: int
    to_ns: int
    start_ns: int
    back: bool = False
    """Whether the history was seen to go back to `known_ns`, and on to `to_ns`."""
    on: bool = False
    first_ns: int = 0
    """The first value that was read."""
    node: Any = None
    why: str = ""
    """Why the rest of it can't be had."""
    ended: str = "its history ends before"
    """Why there was no more of it so far."""


@dataclass(slots=True)
class Hole:
    """A gap to be. While it `awaits` first values, it is not known what is missing of their tags."""

    since: int
    until: int
    why: str
    spans: list[Span] = field(default_factory=list)
    awaits: set[int] = field(default_factory=set)
    tries: int = 0


class TooLong(Exception):
    """A hole took all the time that there is for one."""


class History:
    """The holes of one device."""

    def __init__(self, device: OpcUaDevice, inlet: Inlet, items: Items, counters: dict[str, int]) -> None:
        self._device = device
        self._inlet = inlet
        self._items = items
        self._counters = counters
        self._mark = history_of(device)
        self._names = {tag.index: tag.name for tag in device.tags}
        self._items_then = items.fingerprint
        """What the numbers of tags in a mark stand for."""
        self._holes: list[Hole] = []
        self._known = True
        """Whether the last note of what was read had anything in it."""
        self._wake = asyncio.Event()
        self._points: list[tuple[Any, bytes]] = []
        """What the server keeps for us: nodes, and their continuation points."""
        self._end = 0.0
        self._link: Link
        self._server: Server

    def recall(self) -> None:
        """Takes over the holes that an earlier run left."""
        try:
            items, read = json.loads(self._inlet.marked(f"{self._mark}/known") or b'["", []]')
            if items == self._items_then:
                self._inlet.opcua_know([(int(tag), int(time_ns)) for tag, time_ns in read if tag in self._names])
            items, holes = json.loads(self._inlet.marked(self._mark) or b'["", []]')
            for since, until, why, spans, awaits in holes:
                if awaits or items != self._items_then:  # by now a number may be another tag
                    self._inlet.lost(int(since), int(until), -1, str(why))
                else:
                    self._holes.append(Hole(int(since), int(until), str(why), [_recalled(span) for span in spans]))
        except (IndexError, TypeError, ValueError):
            return
        self._note()

    def leave(self, why: str) -> None:
        """Tells of every hole as a gap: the server that could fill it is not used any more."""
        for hole in [*self._holes]:
            hole.spans += [Span(tag, hole.since, hole.since, hole.until, hole.since) for tag in hole.awaits]
            self._give_up(hole, why)
            self._settle(hole)

    def add(self, since: int, until: int, why: str, missing: Sequence[Missing]) -> None:
        """A hole of which it is known what is missing."""
        hole = Hole(since, until, why)
        self._extend(hole, missing)
        # Times that stand still or go back bound nothing.
        known = len(hole.spans) == len(missing)
        if not known or sum(len(each.spans) for each in self._holes) + len(hole.spans) > MOST_SPANS:
            self._inlet.lost(since, until, -1, why)
        else:
            self._holes.append(hole)
            self._note()
            self._wake.set()

    def begin(self, since: int, until: int, why: str, tags: set[int]) -> None:
        """A hole before a fresh subscription of these tags, whose first values tell what is missing (`first`)."""
        if len(tags) > MOST_SPANS:
            self._inlet.lost(since, until, -1, why)
            return
        self._holes.append(Hole(since, until, why, awaits=set(tags)))
        self._note()
        self._wake.set()

    def first(self, missing: Sequence[Missing]) -> set[int]:
        """The first values of a fresh subscription came. Returns the tags of which a hole takes what is missing."""
        left = {each[0]: each for each in missing}
        for hole in self._holes:
            # The first hole takes all of it: a second one is of a subscription that was gone before its first value.
            taken = hole.awaits.intersection(left)
            self._extend(hole, [left.pop(tag) for tag in taken])
            hole.awaits.difference_update(each[0] for each in missing)
            if any(to_ns < known for tag, known, to_ns in missing if tag in taken):
                self._inlet.lost(hole.since, hole.until, -1, hole.why)  # times that go back bound nothing
        self._note()
        self._wake.set()
        return {each[0] for each in missing}.difference(left)

    def know(self, clean_ns: int) -> None:
        """Notes what was read after `clean_ns`, the time of the last message that left nothing behind: what a later run
        must not read once more."""
        known = [(tag, time_ns) for tag, time_ns in self._inlet.opcua_known(clean_ns) if tag in self._names]
        if known or self._known:
            self._inlet.mark(f"{self._mark}/known", json.dumps([self._items_then, known[:MOST_SPANS]]).encode())
        self._known = bool(known)

    async def run(self, link: Link, server: Server) -> None:
        """Fills one hole after the other while the connection lasts. Whoever publishes finds out when it does not."""
        self._link, self._server, self._points = link, server, []
        while True:
            self._wake.clear()
            if not self._holes:
                await self._wake.wait()
                continue
            hole = self._holes[0]
            self._end = asyncio.get_running_loop().time() + PATIENCE
            await self._told(hole)
            hole.tries += 1
            try:
                await self._fill(hole)
            except TooLong:
                self.release()
                self._give_up(hole, f"it took more than {PATIENCE:g} s")
            except FAULTS as reason:
                self.release()
                if hole.tries < TRIES and not isinstance(reason, UaStatusCodeError):
                    await asyncio.sleep(1.0)
                    continue
                self._give_up(hole, said(reason))
            except Exception as reason:
                # A mistake of our own must not keep a gap from being told.
                facts = {"event": "device_error", "device": self._device.name}
                log.exception("%s: unexpected error in its history", self._device.name, extra=facts)
                self._give_up(hole, type(reason).__name__)
            self._settle(hole)

    def release(self) -> None:
        """Lets go of what the server keeps for us. To be called before the connection is closed."""
        points, self._points = self._points, []
        if points:
            with contextlib.suppress(*FAULTS):
                request = self._request(0, 0, 0, points, release=True)
                self._link.send(request).add_done_callback(lambda late: late.cancelled() or late.exception())

    def _note(self) -> None:
        known = [
            [each.since, each.until, each.why, [_noted(span) for span in each.spans], bool(each.awaits)]
            for each in self._holes
        ]
        self._inlet.mark(self._mark, json.dumps([self._items_then, known]).encode())

    def _extend(self, hole: Hole, missing: Sequence[Missing]) -> None:
        for tag, known, to_ns in missing:
            from_ns = hole.since if known == NOT_KNOWN else known
            if from_ns < to_ns:
                early = hole.since - BACK
                start = early if known == NOT_KNOWN else max(known, early)
                hole.spans.append(Span(tag, from_ns, from_ns, to_ns, start))

    async def _told(self, hole: Hole) -> None:
        """Waits for the first values of a fresh subscription, and not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LATE + 2 * self._device.publish):
                while hole.awaits:
                    await self._wake.wait()
                    self._wake.clear()
        hole.spans += [
            Span(tag, hole.since, hole.since, hole.until, hole.since, why="no value came of it afterwards")
            for tag in hole.awaits
        ]
        hole.awaits.clear()

    async def _fill(self, hole: Hole) -> None:
        await self._find(hole)
        (most,) = await self._link.numbers(
            [ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData]
        )
        size = min(NODES, int(most)) if most else NODES
        wanted = sorted((span for span in hole.spans if not span.why), key=lambda span: span.start_ns)
        while wanted:
            near = [span for span in wanted if span.start_ns - wanted[0].start_ns <= BACK][:size]
            wanted = wanted[len(near) :]
            await self._read(near)

    async def _find(self, hole: Hole) -> None:
        """Finds the nodes, and leaves out those whose values the server does not keep, or does not give us."""
        spans: dict[int, list[Span]] = {}
        for span in hole.spans:
            if not span.why:
                spans.setdefault(span.tag, []).append(span)
        bad: dict[int, int] = {}
        tags = [tag for tag in self._device.tags if tag.index in spans]
        nodes = await self._items.resolve(self._link, self._server, tags, bad)
        for index in bad:
            for span in spans[index]:
                span.why = "the server refuses its node"
        for chunk in chunks(nodes, self._server.limits.read):
            request = read_request(
                [node for _, node in chunk], ua.TimestampsToReturn.Neither, AttributeIds.UserAccessLevel
            )
            results = (await self._link.ask(request, ua.ReadResponse)).Results
            for (tag, node), result in zip(chunk, results, strict=True):
                level = result.Value.Value if result.Value is not None else None
                kept = isinstance(level, int) and bool(level & _HISTORY_READ)
                for span in spans[tag.index]:
                    span.node, span.why = node, "" if kept else "the server keeps no history of it"

    async def _read(self, spans: Sequence[Span]) -> None:
        """Reads some spans at once, until the history has come to the live values."""
        loop = asyncio.get_running_loop()
        late = loop.time() + LATE
        left = [*spans]
        while left:
            before = [span.from_ns for span in left]
            await self._pages(left)
            left = [span for span in left if not (span.on or span.why)]
            if not left:
                break
            if before == [span.from_ns for span in left]:
                if loop.time() >= late:
                    break
                await asyncio.sleep(0.5)
        for span in spans:
            if not (span.back or span.why):
                await self._look_back(span)
            if not (span.back or span.why):
                span.why = "its history does not go back so far"
            elif not (span.on or span.why):
                span.why = span.ended

    async def _pages(self, spans: Sequence[Span]) -> None:
        """Reads what the history has by now, page by page. Raises FAULTS."""
        start, end = min(span.start_ns for span in spans), max(span.to_ns for span in spans) + SECOND
        left = [(span, b"") for span in spans]
        while left:
            if asyncio.get_running_loop().time() > self._end:
                raise TooLong
            await self._inlet.room()
            count = max(100, VALUES // len(left))
            body = bytes(await self._link.raw(self._request(start, end, count, [(s.node, point) for s, point in left])))
            asked = [(span.tag, span.from_ns, span.to_ns) for span, _ in left]
            rest: list[tuple[Span, bytes]] = []
            over: list[tuple[Any, bytes]] = []
            for (span, _), found in zip(left, self._inlet.push_history(asked, body), strict=True):
                span.back, span.on = span.back or found.reaches_back, span.on or found.reaches_on
                span.first_ns = span.first_ns or found.first_ns
                span.from_ns = max(span.from_ns, found.last_ns)
                span.start_ns = max(span.start_ns, found.last_ns)
                self._counters["history_readings"] += found.kept
                if found.status & 0x8000_0000:
                    span.ended = str(ua.StatusCode(ua.UInt32(found.status)).name)
                    # A server that has no place for a continuation point, or lost it, is asked once more from there on.
                    span.why = "" if found.status in _NO_POINT else span.ended
                elif found.refused:
                    span.why = f"{found.refused} values could not be kept"
                if found.point:
                    if span.why or span.on:
                        over.append((span.node, found.point))
                    else:
                        rest.append((span, found.point))
            left = rest
            self._points = over
            self.release()
            self._points = [(span.node, point) for span, point in left]
            self._note()

    async def _look_back(self, span: Span) -> None:
        """Whether a history that gave nothing before the span has the value that is known to be before it."""
        # It may be the time of a message, and not of a value: then anything in the day before it will do.
        for first in (span.known_ns, span.known_ns - FURTHER):
            request = self._request(first, span.known_ns + 1_000_000, 1, [(span.node, b"")])
            asked = [(span.tag, span.known_ns, span.known_ns)]
            (found,) = self._inlet.push_history(asked, bytes(await self._link.raw(request)))
            if found.point:
                self._points = [(span.node, found.point)]
                self.release()
            span.back = span.back or found.reaches_back
            if span.back:
                break

    def _request(
        self, start_ns: int, end_ns: int, count: int, nodes: Sequence[tuple[Any, bytes]], *, release: bool = False
    ) -> ua.HistoryReadRequest:
        details: Any = ua.ReadRawModifiedDetails()  # asyncua's own types are only their annotation
        details.IsReadModified = False
        details.StartTime, details.EndTime = _moment(start_ns), _moment(end_ns)
        details.NumValuesPerNode = count
        details.ReturnBounds = True
        request: Any = ua.HistoryReadRequest()
        request.Parameters.HistoryReadDetails = details
        request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
        request.Parameters.ReleaseContinuationPoints = release
        request.Parameters.NodesToRead = [
            ua.HistoryReadValueId(NodeId=node, ContinuationPoint=point or None) for node, point in nodes
        ]
        return request  # type: ignore[no-any-return]

    def _give_up(self, hole: Hole, why: str) -> None:
        for span in hole.spans:
            if not (span.back and span.on):
                span.why = span.why or why

    def _settle(self, hole: Hole) -> None:
        """Tells what became of a hole: its mark goes in the same moment as the gap that is left of it."""
        self._holes.remove(hole)
        self._note()
        left = [span for span in hole.spans if span.why]
        name, filled = self._device.name, len(hole.spans) - len(left)
        if left:
            tags = ", ".join(f"{self._names[span.tag]}: {span.why}" for span in left[:5])
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            reason = f"{hole.why}; not in the server's history: {tags}{more}"
            since, until = min(_rest(span)[0] for span in left), max(_rest(span)[1] for span in left)
            # A quiet tag's last value may be from long ago; nothing was lost before the hole.
            self._inlet.lost(max(since, min(hole.since, until)), until, -1, reason)
        else:
            self._counters["holes_filled"] += 1
        facts = {"event": "history_read", "device": name, "filled": filled, "left": len(left)}
        log.info("%s: the history had what was missing of %d tags, not of %d", name, filled, len(left), extra=facts)


def history_of(device: OpcUaDevice) -> str:
    """The name of the mark of its holes."""
    return f"opcua/{device.name}/history"


def _rest(span: Span) -> tuple[int, int]:
    """What is missing of a span after all."""
    if span.back:
        return span.from_ns, span.to_ns
    return span.known_ns, span.first_ns if span.on and span.first_ns else span.to_ns


def _noted(span: Span) -> list[int]:
    return [span.tag, span.known_ns, span.from_ns, span.to_ns, span.start_ns, span.back]


def _recalled(noted: list[int]) -> Span:
    tag, known_ns, from_ns, to_ns, start_ns, back = map(int, noted)
    return Span(tag, known_ns, from_ns, to_ns, start_ns, bool(back))


def _moment(time_ns: int) -> Any:
    return (EPOCH + timedelta(microseconds=time_ns // 1000)).replace(tzinfo=None)
