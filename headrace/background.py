"""A command that goes on by itself once it is ready: `--background` of `headrace simulate`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

OPTION = "--background"


def run(arguments: Sequence[str], told: Callable[[dict[str, Any]], None]) -> int:
    """Starts the same command without the option in a session of its own, and returns when it is ready: `told` gets
    what it printed then, with its `pid` and how to `stop` it. Its log still goes to stderr. Returns its exit code where
    it ends before."""
    own = [each for each in arguments if each not in (OPTION, "--json")]
    process = subprocess.Popen(  # noqa: S603 - our own command, with the arguments that it was given
        [sys.executable, "-m", "headrace", *own, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        facts = json.loads(line)
        if facts.get("ready"):
            told({**facts, "pid": process.pid, "stop": f"kill {process.pid}"})
            return 0
    return process.wait()
