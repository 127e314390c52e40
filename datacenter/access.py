"""Access: who asks, and whether they may. Everybody may everything (`open`), or a token's grant says (`token`)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from datacenter.aggregate import Windows
from datacenter.answers import Problem
from datacenter.grants import LEAST_READINGS, Grant, Grants
from datacenter.query import Named, Span

Mode: TypeAlias = Literal["open", "token"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Without a grant, in the mode `open`, everything is allowed."""

    who: str = ""
    grant: Grant | None = None

    def may(self, identifier: str, level: int | None) -> bool:
        return self.grant is None or self.grant.covers(identifier, level)

    def check(self, who: Named) -> None:
        """Raises Problem 403."""
        if not self.may(who.identifier, who.level):
            assert self.grant is not None
            raise Problem(403, f"grant {self.grant.id} does not allow {who.identifier!r}")

    def allowed(self, whom: Iterable[Named]) -> list[Named]:
        return [who for who in whom if self.may(who.identifier, who.level)]

    def aggregates(self, span: Span, windows: Windows | None) -> tuple[Span, Windows | None]:
        """The question as this caller may ask it. Raises Problem 403 for readings where only aggregates are granted.

        Then windows are multiples of the grant's, the span is made of whole ones, and the one that is not over is left
        out: two questions that differ by a little would tell the one reading between them.
        """
        grant = self.grant
        if grant is None or grant.form == "raw":
            return span, windows
        if windows is None:
            raise Problem(403, f"grant {grant.id} allows aggregates only: write aggregate=mean&window=…")
        length = self.whole(windows.length_ns)
        from_ns = max(-(2**63), span.from_ns // length * length)
        to_ns = min(-(-span.to_ns // length) * length, time.time_ns() // length * length)
        return Span(from_ns, max(from_ns, to_ns), span.limit, span.after), Windows(
            windows.kinds, length, LEAST_READINGS, grant.window_ns
        )

    @property
    def base_ns(self) -> int:
        """The length of the shortest window that this caller may see."""
        return self.grant.window_ns if self.grant is not None and self.grant.form == "aggregate" else 1

    def whole(self, window_ns: int) -> int:
        """A window's length, as this caller may have it. Raises Problem 403."""
        if window_ns % self.base_ns:
            assert self.grant is not None
            raise Problem(403, f"grant {self.grant.id} allows windows that are multiples of {self.base_ns / 1e9:g} s")
        return window_ns


class Access:
    """Finds the caller of a question."""

    def __init__(self, mode: Mode, grants: Grants) -> None:
        self.mode = mode
        self.grants = grants

    def caller(self, authorization: str | None) -> Caller:
        """Reads the file of grants: not for the event loop. Raises Problem 401."""
        if self.mode == "open":
            return Caller()
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Problem(401, "a token is wanted: Authorization: Bearer TOKEN (`headrace grant add` makes one)")
        grant = self.grants.of(token.strip())
        if grant is None:
            raise Problem(401, "this token is not known")
        if not grant.live(time.time_ns()):
            why = "was revoked" if grant.revoked_ns is not None else "is over"
            raise Problem(401, f"grant {grant.id} {why}")
        return Caller(grant.who, grant)

    def still(self, caller: Caller) -> None:
        """Raises Problem 401 where the grant was revoked or ended since: nothing of the answer leaves."""
        if caller.grant is not None:
            found = self.grants.get(caller.grant.id)
            if found is None or not found.live(time.time_ns()):
                raise Problem(401, f"grant {caller.grant.id} was revoked")
