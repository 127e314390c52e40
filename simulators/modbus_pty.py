"""A serial line without hardware: a pseudo-terminal with virtual devices on it, linked where a config has its port."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import termios
import time
import tty
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from simulators.modbus_frames import Frames, NotModbus, Rtu
from simulators.modbus_image import Image
from simulators.modbus_server import Server

log = logging.getLogger("headrace.simulators")

_SPEED = 4
"""Where the two speeds are in what termios gives."""


class PtyServer(Server):
    """The units of one serial line. `path` becomes a symbolic link to the pseudo-terminal's other end.

    Nothing that exists is touched, but for a link that leads nowhere any more (left by a simulator that was killed).
    """

    def __init__(
        self,
        path: Path,
        units: Mapping[int, Image],
        clock: Callable[[], int] = time.time_ns,
        framing: Callable[[], Frames] = Rtu,
    ) -> None:
        super().__init__(units, clock, framing)
        self.path = path
        self._frames = framing()
        self._files: tuple[int, ...] = ()
        self._target = ""

    @property
    def place(self) -> str:
        return str(self.path)

    async def start(self) -> None:
        """Raises OSError: EADDRINUSE where the path is something already."""
        if self.path.is_symlink() and not self.path.exists():
            self.path.unlink()
        if self.path.is_symlink() or self.path.exists():
            raise OSError(errno.EADDRINUSE, "exists already", str(self.path))
        ours, theirs = os.openpty()
        # `theirs` stays open as well: a line keeps its level when a client lets go of its port.
        self._files = (ours, theirs)
        try:
            tty.setraw(theirs)
            os.set_blocking(ours, False)
            self._target = os.ttyname(theirs)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.symlink_to(self._target)
        except BaseException:
            self._close()
            raise
        asyncio.get_running_loop().add_reader(ours, self._readable)
        facts = {"event": "pty_made", "path": str(self.path), "target": self._target}
        log.info("Made %s, a link to the pseudo-terminal %s.", self.path, self._target, extra=facts)

    async def stop(self) -> None:
        if not self._files:
            return
        asyncio.get_running_loop().remove_reader(self._files[0])
        if self.path.is_symlink() and str(self.path.readlink()) == self._target:
            self.path.unlink()
        self._close()

    def _close(self) -> None:
        files, self._files = self._files, ()
        for file in files:
            os.close(file)

    def _readable(self) -> None:
        try:
            received = os.read(self._files[0], 4096)
            self._forget_speed()
            # A client that reads nothing loses answers, as on a real line; the driver holds some 4 kB.
            self.answer(self._frames, received, self._send)
        except (BlockingIOError, InterruptedError, NotModbus):
            return

    def _send(self, answers: bytes) -> None:
        if self._files:
            with suppress(BlockingIOError, InterruptedError):
                os.write(self._files[0], answers)

    def _forget_speed(self) -> None:
        """So that the next client finds something to change. A pseudo-terminal has no parity, and a port that differs
        in nothing else from what is asked can't be opened (glibc's tcsetattr: EINVAL). Speed means nothing here."""
        settings = termios.tcgetattr(self._files[1])
        if settings[_SPEED] != termios.B50:
            settings[_SPEED] = settings[_SPEED + 1] = termios.B50
            termios.tcsetattr(self._files[1], termios.TCSANOW, settings)
