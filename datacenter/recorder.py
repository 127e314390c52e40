"""The recorder: every question and what became of it, in the ledger `queries`, before its answer leaves.

A question is answered in its own thread and recorded in another, which writes all that waits with one fsync. The answer
waits for that; where it can't be recorded within `SECONDS` it is not given (503). So a crash loses the record of no
answer that anybody got, and the ledger may hold answers that nobody got.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.audit import AuditError, Head
from agent.audit_file import AuditFile
from agent.audit_queue import AuditQueue

LEDGER = "queries"
SECONDS = 2.0
UNKNOWN_A_MINUTE = 60
"""Refusals of callers without a good token that are recorded one by one; the others are counted in the next record.
Otherwise anybody who reaches the port could fill the ledger, and so stop every answer."""


class Recorder:
    """`keep_days` and `max_bytes` are those of `agent.audit_file.AuditFile`, whose errors opening it raises."""

    def __init__(self, folder: Path, *, keep_days: float = 200.0, max_bytes: int = 1024**3) -> None:
        self.folder = folder
        self._queue = AuditQueue(AuditFile(folder, LEDGER, keep_days=keep_days, max_bytes=max_bytes))
        self._minute = (0, 0)
        self._uncounted = 0

    @property
    def head(self) -> Head:
        return self._queue.head

    @property
    def refused(self) -> int:
        """Records that could not be written; their answers were not given."""
        return self._queue.refused

    async def record(self, facts: Mapping[str, Any], status: int) -> None:
        """Returns when the record is on the disk. Raises AuditError."""
        if status == 401 and not self._room():
            return
        more = {"unrecorded": self._uncounted} if self._uncounted else {}
        self._uncounted = 0
        done = self._queue.put("query", {**facts, "status": status, **more})
        try:
            async with asyncio.timeout(SECONDS):
                await asyncio.wrap_future(done)
        except TimeoutError:
            raise AuditError(f"the ledger {LEDGER} was not written within {SECONDS:g} s") from None

    def _room(self) -> bool:
        minute = int(time.monotonic() // 60)
        count = self._minute[1] + 1 if self._minute[0] == minute else 1
        self._minute = (minute, count)
        if count > UNKNOWN_A_MINUTE:
            self._uncounted += 1
            return False
        return True

    def close(self) -> None:
        self._queue.close()
