"""One node, asked politely: the only file that imports aiohttp.

What a node can do wrong is bounded here: time, size, redirects, compression, how often and how many at once. A node
that fails again and again is left alone for a while, and then tried with one request.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
from yarl import URL

from agent._native import __version__
from agent.errors import HeadraceError
from agent.identifiers.record import MAX_BYTES

FAILURES = 5
"""So many failures in a row open the circuit."""
REST = 30.0
"""Seconds that it stays open; then one request tries."""


class Unreachable(HeadraceError):
    """The node did not answer, or not as it should: what is known holds on, and it is asked again later."""


class Node:
    """Requests to one node. Its counters are for people."""

    def __init__(self, url: str, *, rate: float, concurrency: int, timeout: float, ca: str | None = None) -> None:
        """`rate` is in requests a second, `timeout` in seconds for a whole exchange. Raises ValueError, OSError."""
        self.url = url
        self.requests = self.failures = 0
        self._timeout = timeout
        self._pause = 1.0 / rate
        self._next = 0.0
        self._slots = asyncio.Semaphore(concurrency)
        self._in_a_row = 0
        self._open_until = 0.0
        self._probing = False
        self._concurrency = concurrency
        self._ssl = ssl.create_default_context(cafile=ca)
        self._session: aiohttp.ClientSession | None = None

    @property
    def is_open(self) -> bool:
        """Whether the circuit is open: the node is left alone."""
        return time.monotonic() < self._open_until

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        token: str | None = None,
    ) -> tuple[int, bytes]:
        """(HTTP status, body of at most 256 KiB). `path` is percent-encoded already. Raises Unreachable."""
        if self.is_open or self._probing:
            raise Unreachable(f"{self.url} failed {self._in_a_row} times and is left alone for a while")
        self._probing = self._in_a_row >= FAILURES
        try:
            await self._turn()
            async with self._slots:
                self.requests += 1
                status, body = await self._exchange(method, path, params, json, token)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as reason:
            self._fail()
            raise Unreachable(f"{self.url}: {reason or type(reason).__name__}") from reason
        finally:
            self._probing = False
        if status >= 500 or status == 429:
            self._fail()
            raise Unreachable(f"{self.url} answers HTTP {status}")
        self._in_a_row = 0
        return status, body

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _turn(self) -> None:
        """Waits until the rate allows one more; a pause in between saves up at most a tenth of a second."""
        now = time.monotonic()
        self._next = max(self._next, now - 0.1) + self._pause
        if self._next > now:
            await asyncio.sleep(self._next - now)

    async def _exchange(
        self, method: str, path: str, params: Mapping[str, str] | None, json: Any, token: str | None
    ) -> tuple[int, bytes]:
        if self._session is None:
            self._session = self._begin()
        headers = {"Authorization": f"Bearer {token}"} if token else None
        target = URL(self.url + path, encoded=True)
        request = self._session.request(
            method, target.with_query(params) if params else target, json=json, headers=headers, allow_redirects=False
        )
        async with request as response:
            if 300 <= response.status < 400:
                self._fail()
                raise Unreachable(f"{self.url} redirects to another place, which is not followed")
            body = bytearray()
            while part := await response.content.readany():
                body += part
                if len(body) > MAX_BYTES:
                    self._fail()
                    response.close()
                    raise Unreachable(f"{self.url} answers with more than {MAX_BYTES} bytes")
            return response.status, bytes(body)

    def _begin(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency, ssl=self._ssl),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            # Nothing compressed: the bound on the bytes is then a bound on what they become.
            headers={"User-Agent": f"headrace/{__version__}", "Accept-Encoding": "identity"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    def _fail(self) -> None:
        self.failures += 1
        self._in_a_row += 1
        if self._in_a_row >= FAILURES:
            self._open_until = time.monotonic() + REST
