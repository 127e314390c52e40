"""What long commands say while they work, on stderr and only to people."""

from __future__ import annotations

import argparse
import sys
import time

from agent.errors import HeadraceError

PROGRESS_SECONDS = 1.0


class CannotDo(HeadraceError):
    """What was asked for is not possible now; the text says why, and what to do."""


class Misused(HeadraceError):
    """The call is wrong, and stays so: exit 2. The text says what to write instead."""


class Progress:
    """A line on stderr now and then, where people look."""

    def __init__(self, options: argparse.Namespace, total: int, word: str) -> None:
        self._shown = not options.json and sys.stderr.isatty()
        self._total, self._word, self._count = total, word, 0
        self._told = time.monotonic()

    def step(self) -> None:
        self._count += 1
        if self._shown and time.monotonic() - self._told > PROGRESS_SECONDS:
            self._told = time.monotonic()
            say(f"{self._count} of {self._total or '?'} {self._word}")


def say(text: str) -> None:
    print(f"headrace: {text}", file=sys.stderr)
