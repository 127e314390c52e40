"""Standard output and error as commands need them, however they were started."""

from __future__ import annotations

import errno
import io
import os
import sys

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""What a file that takes no more says."""


def prepare() -> None:
    """Standard streams that are there and take every character: documents in UTF-8 whatever the locale is; a terminal
    keeps its own encoding, and shows what that does not have as an escape."""
    _open()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


def _open() -> None:
    """Puts /dev/null where one was closed: the next file that is opened would stand in its place."""
    while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(free, True)
    os.close(free)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def discard() -> None:
    """What is still to be written goes nowhere: whoever read it went away, or it can't be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
