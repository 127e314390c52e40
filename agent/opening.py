"""What is opened for somebody who may be stopped meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def opened(work: Coroutine[Any, Any, T], close: Callable[[T], Awaitable[object]]) -> T:
    """What `work` gives. Raises what it raises.

    Whoever is cancelled meanwhile waits for it and closes it: what works in a thread can't be stopped, and what it
    opened would stay open, with its lock, while nobody knows of it.
    """
    opening = asyncio.create_task(work)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(Exception):
            await close(await opening)
        raise
