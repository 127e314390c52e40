"""Errors, named by what the caller does next.

HeadraceError
 + ConfigError     fix the file; exit 2; lists every problem with its place
 + NotConnected    try again after a pause
 + Rejected        this entry can never be delivered: set it aside, count it, go on
 + OutboxFull      nothing more may be stored now: stop collecting until there is room
   + TooLarge      this will never fit: a gap takes its place
 + BlockError      bytes that are not a valid block (raised by the core; also a ValueError)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from agent._native import BlockError, HeadraceError

__all__ = [
    "BlockError",
    "ConfigError",
    "HeadraceError",
    "NotConnected",
    "OutboxFull",
    "Problem",
    "Rejected",
    "TooLarge",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a config: where it is, what it is, and what to write instead."""

    file: str
    field: str
    message: str
    hint: str
    line: int | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.message}\n    hint: {self.hint}"

    def as_dict(self) -> dict[str, Any]:
        """The form that `headrace check --json` prints; `line` is left out where it is unknown."""
        found = asdict(self)
        if self.line is None:
            del found["line"]
        return found


class ConfigError(HeadraceError):
    """The config can't be used. `problems` has every reason, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class NotConnected(HeadraceError):
    """The peer is away or the line broke: reconnect after a pause."""


class Rejected(HeadraceError):
    """This entry will never be accepted by its receiver; trying again is of no use."""


class OutboxFull(HeadraceError):
    """The outbox has no room and its policy is `stop_collecting`, or the disk itself is full."""


class TooLarge(OutboxFull):
    """No room would ever be enough: the outbox's quota is smaller than what is to be stored."""
