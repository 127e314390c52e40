"""A ledger for those who may not wait: a bounded queue, and one thread that writes what waits in one go.

`put` gives a future that is done when the record is on the disk. Whoever must not act unrecorded waits for it (an
answer leaves the data center after its record is safe); whoever may, does not. A crash loses the records whose futures
were not done, and nothing else.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from agent.audit import AuditError, Head
from agent.audit_file import AuditFile, Entry

QUEUE = 4096
"""Records. A full queue takes no more: `put` raises."""


class AuditQueue:
    """Writes to `file` from a thread of its own; closes it at the end. `refused` counts what was not recorded."""

    def __init__(self, file: AuditFile, limit: int = QUEUE) -> None:
        self._file = file
        self._limit = limit
        self._waiting: deque[tuple[Entry, Future[Head]]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self.refused = 0
        self._thread = threading.Thread(target=self._run, name=f"audit-{file.name}", daemon=True)
        self._thread.start()

    @property
    def head(self) -> Head:
        """The newest record that is on the disk."""
        return self._file.head

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def put(self, kind: str, facts: Mapping[str, Any]) -> Future[Head]:
        """From any thread; never waits. Raises AuditError where the queue is full or closed: nothing is recorded."""
        done: Future[Head] = Future()
        # From now on it can't be cancelled: whoever stops waiting must not stop the thread that writes.
        done.set_running_or_notify_cancel()
        with self._wake:
            if self._closed or len(self._waiting) >= self._limit:
                self.refused += 1
                raise AuditError(f"the ledger {self._file.name} takes no more records now")
            self._waiting.append(((kind, facts), done))
            self._wake.notify()
        return done

    def close(self, timeout: float = 2.0) -> None:
        """Writes what waits, for at most `timeout` seconds."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._closed:
                    self._wake.wait()
                batch = list(self._waiting)
                self._waiting.clear()
            if not batch:
                break
            self._settle(batch)
        self._file.close()

    def _settle(self, batch: list[tuple[Entry, Future[Head]]]) -> None:
        try:
            head = self._file.append(entry for entry, _ in batch)
        except Exception as reason:
            if len(batch) > 1 and not isinstance(reason, AuditError):
                # One record that can't be written as JSON must not take the others with it.
                for each in batch:
                    self._settle([each])
                return
            self.refused += len(batch)
            for _, done in batch:
                done.set_exception(reason if isinstance(reason, AuditError) else AuditError(str(reason)))
        else:
            for _, done in batch:
                done.set_result(head)
