"""How each kind of node is asked, and what its answers mean.

The Handle.Net form is documented by its maker. The other two are read from one vendor's interface documents, which
contradict themselves in places; they are taken in every form in which they are printed, and nobody has tried them
against a real node yet.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from agent._native import Identifier
from agent.identifiers.node import Node, Unreachable
from agent.identifiers.record import Record, load, read
from agent.identifiers.signature import signed
from agent.sharing import Resolver

TOKEN_SECONDS = 23 * 3600.0
"""A token lives 24 hours."""
NOT_FOUND, NO_VALUES, DAILY_LIMIT = 100, 200, 603


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node said. Without a record: it knows none (`code` 100), or will not say (`final`: not until the config
    is another one)."""

    record: Record | None
    code: int = 1
    text: str = ""
    final: bool = False


class Dialect(Protocol):
    """Asks one node. Raises Unreachable, and ValueError where the answer is not one."""

    async def ask(self, node: Node, identifier: Identifier) -> Answer: ...


class HandleDialect:
    """Handle.Net HTTP JSON API (technical manual, 14.8)."""

    async def ask(self, node: Node, identifier: Identifier) -> Answer:
        status, body = await node.ask("GET", f"/api/handles/{identifier.path}")
        found = load(body)
        code = found.get("responseCode")
        if code == 1:
            return Answer(read(found.get("handle"), found.get("values", [])))
        if code == NO_VALUES:
            return Answer(Record(str(found.get("handle", identifier.text)), ()))
        if code == NOT_FOUND:
            return Answer(None, NOT_FOUND, "the node does not know it")
        if code == DAILY_LIMIT:
            return Answer(None, code, "the node's daily limit is reached")
        if code in (102, 301, 302, 303):
            return Answer(None, code, f"the node refuses it (code {code})", final=True)
        raise Unreachable(f"{node.url} answers HTTP {status}, code {code!r}")


class SnmsDialect:
    """The compatible interface of second-level nodes. Experimental."""

    def __init__(self, username: str, password: str) -> None:
        self._who = {"username": username, "password": password}
        self._token = ""
        self._until = 0.0

    async def ask(self, node: Node, identifier: Identifier) -> Answer:
        for fresh in (False, True):
            token = await self._log_in(node, fresh)
            params = {"handle": identifier.text.removeprefix("hdl:")}
            status, body = await node.ask("GET", "/identityv2/data/detail", params=params, token=token)
            found = load(body)
            word = found.get("status")
            # 1 where the text describes it, 0 in some of its tables.
            if word in (0, 1) and isinstance(found.get("data"), dict):
                return Answer(read(found["data"].get("handle"), found["data"].get("value", [])))
            if word == -1 and not fresh:
                continue
            if word == -2 or (word in (0, 1) and not found.get("data")):
                return Answer(None, NOT_FOUND, str(found.get("message", ""))[:200])
            if word in (-1, -3):
                return Answer(None, 402, "the node does not let this user", final=word == -3)
            raise Unreachable(f"{node.url} answers HTTP {status}, status {word!r}")
        raise Unreachable(f"{node.url} takes no token")

    async def _log_in(self, node: Node, fresh: bool) -> str:
        if fresh or time.monotonic() > self._until:
            _, body = await node.ask("POST", "/identity/token", json=self._who)
            self._token = _token(load(body))
            self._until = time.monotonic() + TOKEN_SECONDS
        return self._token


class IdHubDialect:
    """Enterprise nodes (IDHub), DOIP over HTTP. Experimental."""

    def __init__(self, application: str, key: bytes) -> None:
        self._application = application
        self._key = key
        self._token = ""
        self._until = 0.0

    async def ask(self, node: Node, identifier: Identifier) -> Answer:
        for fresh in (False, True):
            token = await self._log_in(node, fresh)
            handle = identifier.text.removeprefix("hdl:")
            params = {"targetId": handle, "operationId": "0.DOIP/Op.Retrieve"}
            status, body = await node.ask("GET", "/api/v1/doip", params=params, token=token)
            found = load(body)
            code, inner = found.get("code"), found.get("data")
            if code in (1, 10000) and isinstance(inner, dict):
                return Answer(read(inner.get("handle", handle), [_element(each) for each in _elements(inner)]))
            if code == 102 and not fresh:
                continue
            if code == 104:
                return Answer(None, NOT_FOUND, "the node does not know it")
            if code in (102, 103, 403, 701):
                return Answer(None, 402, f"the node does not let this application (code {code})", final=code == 701)
            raise Unreachable(f"{node.url} answers HTTP {status}, code {code!r}")
        raise Unreachable(f"{node.url} takes no token")

    async def _log_in(self, node: Node, fresh: bool) -> str:
        if fresh or time.monotonic() > self._until:
            path = "/api/v1/doip/public/challenge"
            _, body = await node.ask("GET", path, params={"handle": self._application})
            nonce = load(body).get("data")
            answer = {"handle": self._application, "signature": signed(str(nonce).encode(), self._key)}
            _, body = await node.ask("POST", "/api/v1/doip/public/verify-response", json=answer)
            self._token = _token(load(body))
            self._until = time.monotonic() + TOKEN_SECONDS
        return self._token


def dialect(resolver: Resolver) -> Dialect:
    """The dialect that the config names. Raises OSError where its key can't be read."""
    if resolver.dialect == "snms":
        return SnmsDialect(resolver.username or "", resolver.password or "")
    if resolver.dialect == "idhub":
        return IdHubDialect(resolver.application or "", resolver.key.read_bytes() if resolver.key else b"")
    return HandleDialect()


def _token(found: dict[str, Any]) -> str:
    inner = found.get("data")
    token = inner.get("token") if isinstance(inner, dict) else None
    if not isinstance(token, str) or not token:
        raise Unreachable("the node gives no token: is the password or the key right?")
    return token


def _elements(found: dict[str, Any]) -> list[Any]:
    for name in ("elements", "value", "values"):
        if isinstance(found.get(name), list):
            return list(found[name])
    return []


def _element(found: object) -> dict[str, Any]:
    """One element as a value of a record; its name stands for the type, and it may have no value at all."""
    if not isinstance(found, dict):
        raise ValueError("an element that is no object")  # noqa: TRY004 - a wrong answer, not a wrong call
    value = found.get("value", found.get("vlaue", found.get("data", "")))
    kind = found.get("name") or found.get("type")
    return {
        "index": found.get("index", 0),
        "type": kind,
        "data": value if isinstance(value, dict | str) else str(value),
    }
