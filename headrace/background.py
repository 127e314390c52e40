"""A command that goes on by itself once it is ready: `--background` of `headrace simulate`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

OPTION = "--background"
OURS = (sys.executable, "-P", "-m", "headrace")
"""This command again. Without -P a json.py in the directory where it was typed would be taken for Python's own."""


def run(arguments: Sequence[str], log: Path, told: Callable[[dict[str, Any]], None]) -> int:
    """Starts the same command without the option in a session of its own, and returns when it is ready: `told` gets
    what it printed then, with its `pid`, how to `stop` it, and where its `log` is. Where it ends before, that log is
    shown, and its exit code returned. Raises OSError where the log can't be written."""
    own = [each for each in arguments if each not in (OPTION, "--json")]
    with log.open("wb") as errors:  # a file: whoever waits for the end of our stderr is not to wait for the child
        process = subprocess.Popen(  # noqa: S603 - our own command, with the arguments that it was given
            [*OURS, *own, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdout is not None
    for line in process.stdout:
        facts = json.loads(line)
        if facts.get("ready"):
            told({**facts, "pid": process.pid, "stop": f"kill {process.pid}", "log": str(log)})
            return 0
    code = process.wait()
    sys.stderr.write(log.read_text("utf-8", errors="replace"))
    return code
