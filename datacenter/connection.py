"""A connection to the HTTP interface that is given up where nobody asks or nobody takes the answer.

The number of connections is bounded, so each that is silent keeps somebody out: one that was opened and forgotten, a
request that comes letter by letter, an answer of which nothing is read any more.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

LOOK = 2.0
"""Seconds between two looks at a connection."""
ASKED_WITHIN = 15.0
"""Seconds for a whole request to come, from the connection's begin or the answer before."""
TAKEN_WITHIN = 30.0
"""Seconds in which at least some of an answer has to be taken."""


class Connection(H11Protocol):
    """uvicorn's, which waits for ever for a request, and for an answer to be read."""

    _timer: asyncio.TimerHandle | None = None
    _since = 0.0
    """When it last did what it is for, in the loop's time."""
    _untaken = 0
    """Bytes of the answer that the other side had not taken at the last look."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(LOOK, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def _look(self) -> None:
        self._timer = self.loop.call_later(LOOK, self._look)
        now, untaken = self.loop.time(), self.transport.get_write_buffer_size()
        cycle: Any = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if untaken < self._untaken or (answering and not untaken):
            self._since = now
        self._untaken = untaken
        if now - self._since > (TAKEN_WITHIN if untaken else ASKED_WITHIN):
            self.transport.abort()
