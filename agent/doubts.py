"""Doubts: which blocks were stamped by a clock that was not synchronised, until it is known by how much they are off.

They are kept as a mark, in one transaction with the blocks and the corrections that they are about. So they outlive the
process, and are good for as long as the machine is not started again: nobody knows what a clock without power did.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from agent.clock import STEP_NS

log = logging.getLogger("headrace.clock")

MARK = "clock"
MOST = 64
"""Spans. Past that the oldest stays as it is: marked, and never corrected."""
LEAST_NS = 1_000_000
"""Times that are off by less are left as they are."""


@dataclass(frozen=True, slots=True)
class _Span:
    """Blocks from a place on, up to the next span's first, of one stream and stamped with one offset."""

    stream: bytes
    first: int
    offset_ns: int


@dataclass(frozen=True, slots=True)
class Correction:
    """To the stamps in the blocks `first` to `last` of `stream`, `offset_ns` is to be added. `mark` is what remains."""

    stream: bytes
    first: int
    last: int
    offset_ns: int
    mark: bytes


class Doubts:
    """`note` blocks while the clock is not synchronised; `settle` once it is."""

    def __init__(self, boot: str) -> None:
        self._boot = boot
        self._spans: list[_Span] = []

    def restore(self, mark: bytes | None) -> None:
        """Takes over what an earlier run left. What can't be corrected any more is said once."""
        found = _parse(mark) if mark and mark != _NOTHING else None
        if found is None:
            return
        boot, spans = found
        if boot and boot == self._boot:
            self._spans = spans
        elif spans:
            self._leave(spans[0].first, "the machine was started again before its clock was synchronised")

    def note(self, stream: bytes, place: int, offset_ns: int) -> dict[str, bytes]:
        """The block at `place` has stamps of this offset, and they are in doubt. Returns the mark to keep with it."""
        last = self._spans[-1] if self._spans else None
        if last and last.stream == stream and abs(last.offset_ns - offset_ns) < STEP_NS:
            return {}
        self._spans.append(_Span(stream, place, offset_ns))
        if len(self._spans) > MOST:
            self._leave(self._spans.pop(0).first, "the clock was set too often before it was synchronised")
        return self.mark()

    def take_back(self, first: int) -> None:
        """The blocks from the place `first` on are taken back: others will stand there."""
        self._spans = [span for span in self._spans if span.first < first]

    def settle(self, offset_ns: int, last: int) -> Iterator[Correction]:
        """The clock is right, with this offset, and `last` is the last place that was given out.

        Each correction is to be stored with its mark before the next is asked for.
        """
        ends = [span.first - 1 for span in self._spans[1:]] + [last]
        for end in ends:
            span, *rest = self._spans
            off_ns = offset_ns - span.offset_ns
            if abs(off_ns) >= LEAST_NS and span.first <= end:
                yield Correction(span.stream, span.first, end, off_ns, self._mark(rest))
            self._spans = rest

    @property
    def any(self) -> bool:
        """Whether there are blocks in doubt."""
        return bool(self._spans)

    def mark(self) -> dict[str, bytes]:
        """The mark of what is in doubt now."""
        return {MARK: self._mark(self._spans)}

    def _mark(self, spans: list[_Span]) -> bytes:
        if not spans:
            return _NOTHING
        rows = [[span.stream.hex(), span.first, span.offset_ns] for span in spans]
        return orjson.dumps({"boot": self._boot, "spans": rows})

    @staticmethod
    def _leave(first: int, why: str) -> None:
        facts = {"event": "times_uncorrected", "first": first}
        log.warning("readings from block %d on stay marked as of a wrong clock: %s", first, why, extra=facts)


_NOTHING = b"{}"


def _parse(mark: bytes) -> tuple[str, list[_Span]] | None:
    try:
        found: Any = orjson.loads(mark)
        spans = [_Span(bytes.fromhex(stream), int(first), int(off)) for stream, first, off in found["spans"]]
        return str(found["boot"]), spans
    except (ValueError, KeyError, TypeError) as reason:
        log.warning("the mark of the clock can't be read: %s", reason, extra={"event": "mark_unreadable"})
        return None
