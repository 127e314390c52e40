"""Whether something listens at an address: asked without blocking the loop, or one of its few threads."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress


async def listens(host: str, port: int, seconds: float) -> bool:
    """Opens a TCP connection and closes it. The answer comes within `seconds`; no answer is a no."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[bool] = loop.create_future()

    def settle(there: bool) -> None:
        if not found.done():
            found.set_result(there)

    def dial() -> None:
        there = False
        with suppress(OSError):
            socket.create_connection((host, port), seconds).close()
            there = True
        with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            loop.call_soon_threadsafe(settle, there)

    # A thread of its own: a name server that does not answer holds it for minutes.
    threading.Thread(target=dial, name="probe", daemon=True).start()
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await found
    return False
