"""The demo's processes: started, watched, stopped in order, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from typing import Any

from agent.errors import HeadraceError
from headrace import background


class Died(HeadraceError):
    """A process of the demo ended by itself; the message has the end of its log."""


class Child:
    """One process in a session of its own, so that a Ctrl-C reaches the demo, which then stops it in its turn."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}
        """The last JSON line that it printed."""
        self.heard = asyncio.Event()
        self._command = command
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    def headrace(cls, name: str, log: Path, *arguments: str) -> Child:
        """One of our own commands."""
        return cls(name, [*background.OURS, "--log-format", "json", *arguments], log)

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                limit=1 << 20,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        while line := await process.stdout.readline():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict):
                    self.facts = found
                    self.heard.set()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def must_run(self) -> None:
        """Raises Died where it does not."""
        if not self.running:
            tail = self._log.read_text("utf-8", "replace").strip().splitlines()[-5:]
            raise Died(f"the {self.name} ended by itself; the end of {self._log}:\n  " + "\n  ".join(tail))

    async def first_words(self, deadline: float) -> None:
        """Waits for its first JSON line. Raises Died."""
        try:
            async with asyncio.timeout(deadline):
                while not self.heard.is_set():
                    self.must_run()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await self.heard.wait()
        except TimeoutError:
            raise Died(f"the {self.name} did not start within {deadline:.0f} s; see {self._log}") from None

    async def stop(self, deadline: float = 3.0) -> None:
        """Asks it to end, and ends it where it has not by the deadline."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(deadline):
                    await process.wait()
            except TimeoutError:
                self.kill()
                await process.wait()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=1.0)

    def kill(self) -> None:
        """Ends it at once, with all it started."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
