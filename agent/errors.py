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

import errno
import os
import ssl
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
    "spoken",
    "unopened",
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


def spoken(reason: BaseException) -> str:
    """What went wrong, in words. Errors of the system hide theirs behind numbers, and asyncio puts its own before them;
    of a name's look-up, whose numbers are negative, and of TLS the text is the words."""
    if isinstance(reason, ConnectionRefusedError):
        return f"{os.strerror(reason.errno)}: nothing listens there" if reason.errno else "Connection refused"
    if isinstance(reason, OSError) and not isinstance(reason, ssl.SSLError) and reason.errno:
        return os.strerror(reason.errno) if reason.errno > 0 else str(reason.strerror)
    return str(reason) or type(reason).__name__


def unopened(path: object, reason: Exception, key: str) -> str:
    """Why a file of ours can't be opened, and what to do. `key` of the config says where it lies."""
    words, where = spoken(reason), path
    number = None
    if isinstance(reason, OSError):
        number, where = reason.errno, reason.filename or path
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        what = f"give this user the right to write there, or write another {key}"
    elif number in (errno.EEXIST, errno.ENOTDIR, errno.ENOENT, errno.ENAMETOOLONG):
        words = os.strerror(errno.ENOTDIR) if number == errno.EEXIST else words
        what = f"write another {key}"
    else:
        what = "is its disk full, or failing?"
    at = "" if str(where) == str(path) else f"{where}: "
    return f"{path} can't be opened: {at}{words}; {what}"
