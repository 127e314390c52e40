"""What a device's refusals say about its registers, so that what was halved to find a bad tag is joined again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from agent.collectors.requests import FUNCTIONS, Request, requests
from agent.limits import Limits, Span

_TABLES = {code: table for table, code in FUNCTIONS.items()}


class Findings:
    """For the requests of one table and one period. Pure: it is told what was cut, and what came of the parts.

    A refused request has a reason: a bad tag in it, registers between its tags that are not there, or something that
    only the device knows (it is too long, or reaches over two blocks). The first two are planned around. Where
    any request was refused for the last, the parts stay as they are. So each new plan follows from more findings than
    the one before, and a device is not asked in new ways for ever.
    """

    def __init__(self) -> None:
        self._cuts: dict[Request, tuple[Request, ...]] = {}
        self._holes: set[Span] = set()
        self._own = False
        self._changed = False

    def cut(self, whole: Request, parts: Sequence[Request]) -> None:
        """A request was refused, and its parts are asked for instead."""
        self._cuts[whole] = tuple(parts)
        self._changed = True

    def mended(self) -> None:
        """What was bad answers again."""
        self._changed = True

    def plan(self, good: Iterable[Request], bad: Sequence[Request], limits: Limits) -> list[Request] | None:
        """The fewest requests for the tags of `good` that read nothing of `bad`, or of what lies in known holes; None
        where nothing was found out since the last time. Every request has answered by now, or is in `bad`."""
        if not self._changed:
            return None
        self._changed = False
        cuts, self._cuts = self._cuts, {}
        for parts in cuts.values():
            if any(part in cuts or part in bad for part in parts):
                continue  # that is the reason
            hole = _between(parts)
            if hole is None:
                self._own = True
            else:
                self._holes.add(hole)
        if self._own:
            return None
        known = (*limits.forbidden, *self._holes, *(_span(each) for each in bad))
        some = list(good)
        tags = [tag for request in some for tag in request.tags]
        return requests(tags, replace(limits, forbidden=known), some[0].period) if some else []


def _span(request: Request) -> Span:
    return Span(_TABLES[request.function], request.address, request.address + request.count - 1)


def _between(parts: tuple[Request, ...]) -> Span | None:
    """The registers between two parts that no tag needs, where there are any."""
    first, second = (_span(each) for each in parts)
    return Span(first.table, first.last + 1, second.first - 1) if second.first > first.last + 1 else None
