"""A faulty line between two programs: the proxy of the simulators, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from simulators.proxy import Fault, Proxy

SECONDS = 40.0


class Line:
    """Listens at `port` of 127.0.0.1 and carries connections to `target`, with the fault that was last applied."""

    def __init__(self, target: int, *, seed: int) -> None:
        self._proxy = Proxy("127.0.0.1", 0, ("127.0.0.1", target), seed=seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)

    @property
    def port(self) -> int:
        return self._proxy.port

    def apply(self, fault: Fault | None) -> None:
        """From here on; None heals it."""
        self._run(self._proxy.apply(fault))

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._proxy.open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)
