"""Settling: a thread that puts what has arrived into runs ordered by tag and time, so that one tag's day is read from a
few places instead of all. Each run is one transaction: a crash leaves the readings where they were, and each once.
"""

from __future__ import annotations

import logging
import threading
import time

from datacenter import tables
from datacenter.store import Store, Unwritable

log = logging.getLogger("headrace.settle")

RUN = 4_000_000
"""Readings of one run. Sorting them takes about 250 MB and two seconds of a core, for which ingest goes on."""
EVERY = 1.0
"""Seconds between two looks."""


class Settler:
    """`runs` and `readings` count since the start; `longest` is the longest run's seconds."""

    def __init__(self, store: Store, run: int = RUN) -> None:
        self.runs = self.readings = 0
        self.longest = 0.0
        self._store = store
        self._run_size = run
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="settle", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Gives a run up that is being made; returns whether the thread ended within `timeout` seconds."""
        self._stopping.set()
        if self._thread.ident is None:
            return True
        self._store.stop_settling()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def step(self) -> bool:
        """Makes one run where there is enough for one; whether it did."""
        with self._store.snapshot() as view:
            kind, waiting = max(view.rows(tables.WAITING), key=lambda found: int(found[1]))
        if waiting < self._run_size:
            return False
        began = time.monotonic()
        self.readings += self._store.settle(kind, self._run_size)
        self.runs += 1
        self.longest = max(self.longest, time.monotonic() - began)
        return True

    def _run(self) -> None:
        pause, told = EVERY, False
        while not self._stopping.wait(pause):
            try:
                while not self._stopping.is_set() and self.step():
                    pause = EVERY
                if told:
                    log.warning("readings are put in order again", extra={"event": "settling"})
                told = False
            except TimeoutError:
                return
            except Unwritable as reason:
                # Nothing is lost: queries are slower until there is room.
                pause = min(pause * 2, 60.0)
                if not told:
                    log.error("readings can't be put in order now: %s", reason, extra={"event": "not_settling"})
                told = True
            except Exception as reason:
                log.critical("settling stopped: %s", reason, exc_info=True, extra={"event": "settling_failed"})
                return
