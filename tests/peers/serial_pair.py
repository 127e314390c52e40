"""Two serial ports of this machine with a cable between them: a pair of ptys, and a thread that carries the bytes."""

from __future__ import annotations

import os
import random
import select
import threading
import tty
from types import TracebackType
from typing import Self


class SerialPair:
    """`one` and `other` are the paths of the ports. The bytes arrive in pieces, as through a slow UART."""

    def __init__(self, seed: int = 1) -> None:
        self._dice = random.Random(seed)
        ends = [os.openpty() for _ in range(2)]
        self._masters = [master for master, _ in ends]
        self._slaves = [slave for _, slave in ends]
        for slave in self._slaves:
            tty.setraw(slave)
        self.one, self.other = (os.ttyname(slave) for slave in self._slaves)
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._carry)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._stop)
        self._thread.join()
        for each in (*self._masters, *self._slaves, self._wake):
            os.close(each)

    def _carry(self) -> None:
        one, other = self._masters
        while True:
            ready, _, _ = select.select([one, other, self._wake], [], [])
            if self._wake in ready:
                return
            for master in ready:
                os.write(other if master is one else one, os.read(master, self._dice.randrange(1, 32)))
