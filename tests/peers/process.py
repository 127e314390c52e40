"""A program that a test starts, kills and starts again, always at the same port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from types import TracebackType
from typing import Self

START_SECONDS = 45.0
STOP_SECONDS = 20.0
PAUSE_SECONDS = 0.02
PORTS = range(10_000, 20_000)
"""Those above are for the demo (`simulators.ports`), and from 32,768 on for connections going out."""
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_left: list[int] = []
"""The ports that this process has not given out yet, of those that no other worker of pytest gives out."""


class PeerMissing(AssertionError):
    """The program is not installed. A failure, not a skip: a promise that was not tested is not kept."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is missing: run `make peers`")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens at now, and that no connection going out is given.

    Until its program listens nothing shows that a port was given out: nobody gets it a second time, before all others.
    """
    for _ in range(100):
        if not _left:
            mine = PORTS[_WORKER::_WORKERS]
            _left.extend(SystemRandom().sample(mine, len(mine)))
        port = _left.pop()
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("100 ports were taken")


def program(name: str) -> str:
    """The path of an installed program; system programs lie outside a user's PATH on Debian. Raises PeerMissing."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=places)
    if found is None:
        raise PeerMissing(name)
    return found


class Peer(ABC):
    """One such program: start, stop or kill, start again at the same port.

    `home` is a directory of its own for its config, its store and `log`. The calls block (a start takes up to a few
    seconds): an async test that must go on meanwhile calls them through `asyncio.to_thread`.
    """

    scheme: str
    stop_seconds = STOP_SECONDS
    """How long `stop` waits before it kills."""

    def __init__(self, home: Path, port: int | None = None) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self.port = port or free_port()
        self.log = home / "log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} is not running")
        return self._process.pid

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def code(self) -> int | None:
        """How it ended by itself: its exit code, or minus the signal that killed it; None while it runs."""
        return None if self._process is None else self._process.poll()

    @abstractmethod
    def command(self) -> list[str]:
        """What to run, after writing its config. Raises PeerMissing."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it answers now; asked again and again until it does."""

    def start(self, *, wait: bool = True) -> None:
        """Starts it, and waits until it answers. Raises AssertionError with the end of its log where it does not."""
        if self.running():
            raise RuntimeError(f"{type(self).__name__} runs already")
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Waits until it answers, as `start` does."""
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if not self.running() or time.monotonic() > deadline:
                why = "took too long to start" if self.running() else "ended at once"
                self.kill()
                end = self.log.read_text(errors="replace")[-2000:]
                raise AssertionError(f"{type(self).__name__} {why}; its log ends:\n{end}")
            time.sleep(PAUSE_SECONDS)

    def kill(self) -> None:
        """kill -9: it gets no chance to write anything. Harmless where it does not run."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Asks it to end, as its service manager would; kills it where it does not. Harmless where it does not run."""
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """Stops it if it runs, and starts it at the same port, with what it stored."""
        self.stop()
        self.start()

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        try:
            process.wait(self.stop_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def listens(port: int) -> bool:
    """Whether something accepts TCP connections at 127.0.0.1:port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
