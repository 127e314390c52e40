"""A resolver on this machine: all three dialects over one set of records, and everything that a node can do wrong.

Its HTTP is made by hand, since half of what it is for can't be said with a web framework.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from agent._native import Identifier
from simulators.records import Entry, Root

log = logging.getLogger("headrace.simulators")

MAX_HEAD = 32 * 1024
MAX_BODY = 64 * 1024


class Fault(StrEnum):
    """What the node does to a request."""

    SLOW = "slow"
    """Answers `seconds` later."""
    HANG = "hang"
    """Never answers."""
    RESET = "reset"
    """Cuts the connection."""
    DRIP = "drip"
    """A byte each 50 ms."""
    ERROR = "error"
    """HTTP 500, code 2."""
    UNAVAILABLE = "unavailable"
    """HTTP 504 without JSON."""
    REDIRECT = "redirect"
    """To itself, for ever."""
    OVERSIZE = "oversize"
    """A megabyte, without saying so before."""
    MALFORMED = "malformed"
    """JSON that ends in the middle."""
    DEEP = "deep"
    """JSON nested a thousand deep."""
    WRONG = "wrong"
    """The record of another handle."""
    TAMPERED = "tampered"
    """A value that is not the one that was signed."""
    FORGED = "forged"
    """Signed by nobody we know."""
    EXPIRED = "expired"
    """A signature whose time is over."""
    LIMIT = "limit"
    """Code 603: the daily limit."""


@dataclass(slots=True)
class _Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes


class ResolverServer:
    """One node: open / close. `records` may change at any time, and so may `fault` (None: an honest node)."""

    def __init__(self, records: dict[str, Entry], *, host: str = "127.0.0.1", port: int = 0) -> None:
        """`records` by the key of their identifier. `port` 0 takes a free one."""
        self.records = records
        self.host, self.port = host, port
        self.fault: Fault | None = None
        self.seconds = 1.0
        self.case_sensitive = False
        self.success = 1
        """What an enterprise node says where all is well: 1 or 10000."""
        self.root: Root | None = None
        """Where it is set, every record is signed by it."""
        self._other: Root | None = None
        self.asked: Counter[str] = Counter()
        """Requests for a record, by the handle as it was written."""
        self.tokens: set[str] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    async def open(self) -> None:
        """Listens. Raises OSError."""
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=MAX_HEAD)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Cuts every client and frees the port."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            while (request := await _read(reader)) is not None:
                if not await self._serve(request, writer):
                    break
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _serve(self, request: _Request, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; whether the connection goes on."""
        status, found = self._answer(request)
        status, body = _spoiled(self.fault, status, orjson.dumps(found))
        head = ""
        if self.fault is Fault.SLOW:
            await asyncio.sleep(self.seconds)
        elif self.fault is Fault.HANG:
            await asyncio.Event().wait()
        elif self.fault is Fault.RESET:
            return False
        elif self.fault is Fault.REDIRECT:
            head = f"Location: {self.url}{request.path}\r\n"
        elif self.fault is Fault.OVERSIZE:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b" " * 1_000_000)
            await writer.drain()
            return False
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        text = f"HTTP/1.1 {status} Simulated\r\n{head}"
        if self.fault is Fault.DRIP:
            for at in range(len(text) + len(body)):
                writer.write((text.encode() + body)[at : at + 1])
                await asyncio.sleep(0.05)
        else:
            writer.write(text.encode() + body)
        await writer.drain()
        return True

    def _answer(self, request: _Request) -> tuple[int, dict[str, Any]]:
        path = request.path
        if path.startswith("/api/handles/"):
            return self._handle(unquote(path.removeprefix("/api/handles/")), request.query)
        found: dict[str, Any]
        match path:
            case "/identity/token":
                found = {"status": 1, "message": "success", "data": {"token": self._token()}}
            case "/identityv2/data/detail":
                found = self._snms(request)
            case "/api/v1/doip/public/challenge":
                found = {"code": self.success, "data": "1816"}
            case "/api/v1/doip/public/verify-response":
                signed = bool(orjson.loads(request.body or b"{}").get("signature"))
                found = {"code": self.success, "data": {"token": self._token()}} if signed else {"code": 102}
            case "/api/v1/doip":
                found = self._idhub(request)
            case _:
                return 404, {"responseCode": 2, "message": "there is no such path"}
        return 200, found

    def _handle(self, handle: str, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        if "/" not in handle:
            return 400, {"responseCode": 102, "handle": handle}
        values = self._values(handle)
        if values is None:
            return 404, {"responseCode": 100, "handle": handle}
        kinds = [kind.upper() for kind in query.get("type", [])]
        indexes = [int(index) for index in query.get("index", [])]
        if kinds or indexes:
            values = [
                each for each in values
                if each["index"] in indexes or any(_fits(each["type"].upper(), kind) for kind in kinds)
            ]  # fmt: skip
            if not values:
                return 200, {"responseCode": 200, "handle": handle}
        shown = "88.0/another" if self.fault is Fault.WRONG else handle
        return 200, {"responseCode": 1, "handle": shown, "values": values}

    def _snms(self, request: _Request) -> dict[str, Any]:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return {"status": -1, "message": "not logged in"}
        handle = request.query.get("handle", [""])[0]
        values = self._values(handle)
        if values is None:
            return {"status": -2, "message": "no such handle"}
        found = [{**each, "auth": "1"} for each in values]
        return {"status": 1, "message": "success", "data": {"handle": handle, "templateVersion": "1.0", "value": found}}

    def _idhub(self, request: _Request) -> dict[str, Any]:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return {"code": 102}
        handle = request.query.get("targetId", [""])[0]
        values = self._values(handle)
        if values is None:
            return {"code": 104, "message": "not found"}
        elements = [{"index": each["index"], "name": each["type"], "vlaue": each["data"]["value"]} for each in values]
        return {"code": self.success, "data": {"handle": handle, "elements": elements}}

    def _values(self, handle: str) -> list[dict[str, Any]] | None:
        self.asked[handle] += 1
        try:
            key = Identifier(handle).key
        except ValueError:
            return None
        entry = self.records.get(key)
        if entry is None or (self.case_sensitive and entry.handle != handle):
            return None
        values = entry.values()
        if self.root is not None or self.fault in (Fault.TAMPERED, Fault.FORGED, Fault.EXPIRED):
            signer = self._stranger() if self.root is None or self.fault is Fault.FORGED else self.root
            begin = -7200.0 if self.fault is Fault.EXPIRED else 0.0
            text = signer.sign(entry.handle, values, begin=begin)
            data = {"format": "string", "value": text}
            values.append({"index": 400, "type": "HS_SIGNATURE", "data": data, "ttl": 86_400})
        if self.fault is Fault.TAMPERED:
            values[0]["data"]["value"] += " (changed)"
        return values

    def _stranger(self) -> Root:
        if self._other is None:
            self._other = Root()  # made once: a key takes a second
        return self._other

    def _token(self) -> str:
        token = secrets.token_hex(16)
        self.tokens.add(token)
        return token


def _spoiled(fault: Fault | None, status: int, body: bytes) -> tuple[int, bytes]:
    """The answer as a faulty node gives it."""
    deep = b'{"responseCode":1,"handle":"x","values":' + b"[" * 900 + b"]" * 900 + b"}"
    spoiled = {
        Fault.ERROR: (500, b'{"responseCode":2}'),
        Fault.UNAVAILABLE: (504, b"<html>gateway time-out</html>"),
        Fault.REDIRECT: (302, b""),
        Fault.MALFORMED: (status, body[: len(body) // 2]),
        Fault.DEEP: (status, deep),
        Fault.LIMIT: (status, b'{"responseCode":603,"status":-4,"code":603}'),
    }
    return spoiled.get(fault, (status, body)) if fault else (status, body)


async def _read(reader: asyncio.StreamReader) -> _Request | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines if line)}
    length = int(headers.get("content-length", "0"))
    if length > MAX_BODY:
        raise ValueError("a body that is too long")
    body = await reader.readexactly(length) if length else b""
    parts = urlsplit(target)
    return _Request(method, parts.path, parse_qs(parts.query), headers, body)


def _fits(kind: str, wanted: str) -> bool:
    """Whether a value of a type answers a question for another: `URL.` asks for all subtypes too."""
    return kind == wanted.removesuffix(".") or (wanted.endswith(".") and kind.startswith(wanted))
