"""What goes over MQTT beside blocks: topics, catalog, state, receipts, commands. All JSON, all small.

Everything that is decoded here came from outside: a message that does not fit raises ValueError with the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from typing import Any, TypeGuard
from urllib.parse import unquote, urlsplit, urlunsplit
from uuid import UUID

import orjson

from agent import envelope

ROOT = "headrace/v1"
CATALOG_FORMAT = "headrace-catalog/1"
MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes. A larger message is refused before it is parsed."""
MOST_BEYOND = 256
"""Intervals in one receipt: about 10 KB."""
MOST_REJECTED = 32
"""Blocks that one receipt rejects."""
MOST_REASON = 200
"""Characters of why a block is rejected."""


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one agent (`agent="+"` gives the filters that a data center subscribes to)."""

    agent: str
    root: str = ROOT

    @property
    def data(self) -> str:
        return f"{self.root}/{self.agent}/data"

    @property
    def catalog(self) -> str:
        """Retained: the newest epoch's catalog."""
        return f"{self.root}/{self.agent}/catalog"

    @property
    def state(self) -> str:
        """Retained, and the last will: whether the agent is online."""
        return f"{self.root}/{self.agent}/state"

    @property
    def receipts(self) -> str:
        return f"{self.root}/{self.agent}/receipts"

    @property
    def commands(self) -> str:
        return f"{self.root}/{self.agent}/commands"

    @classmethod
    def parse(cls, topic: str, root: str = ROOT) -> tuple[str, str]:
        """(agent, last word) of a topic. Raises ValueError for any other shape."""
        head, _, rest = topic.partition(f"{root}/")
        agent, _, word = rest.partition("/")
        if head or not agent or word not in ("data", "catalog", "state", "receipts", "commands", "replies"):
            raise ValueError(f"not a Headrace topic: {topic!r}")
        return agent, word


@dataclass(frozen=True, slots=True)
class CatalogTag:
    """One tag of an epoch, as the data center keeps it (docs/catalog.schema.json).

    `source` says where it is read: protocol, url, address. `unit_code` is UNECE's, `names` are by language, `semantic`
    is an identifier of what the readings mean. `resolution` is empty where nobody is asked; else `resolved`, `verified`
    (signed by a root), `stale`, `unresolved`, `unknown` to the node, `refused` (not to be trusted), `static` (of a
    scheme that the node does not resolve), or `opaque` (of no known scheme).
    """

    tag: int
    device: str
    name: str
    identifier: str
    type: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    domain: str = ""
    level: int | None = None
    description: str = ""
    source: dict[str, str] = field(default_factory=dict)
    unit_code: str = ""
    category: str = ""
    redundant: bool = False
    names: dict[str, str] = field(default_factory=dict)
    semantic: str = ""
    resolution: str = ""

    def facts(self) -> dict[str, Any]:
        """Its fields; those that say nothing are left out."""
        found: dict[str, Any] = {"tag": self.tag}
        for name in _WORDS:
            value = getattr(self, name)
            if value or (value == 0 and value is not False):
                found[name] = value
        return found


_WORDS = tuple(each.name for each in fields(CatalogTag))[1:]


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the tags of one epoch are. Content-addressed: equal content has the same epoch on every machine.

    `products` are the devices' product metadata, by the name of the device.
    """

    agent: str
    tags: Sequence[CatalogTag]
    products: dict[str, dict[str, str]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """JSON without white space, every object's keys sorted.

        The epoch is taken from these bytes, so they must not depend on anything else.
        """
        return b"".join(self._pieces())

    def packed(self) -> tuple[bytes, int]:
        """The same as it is kept and sent, in an envelope where it is large; and its epoch."""
        body, digest = envelope.pack(self._pieces())
        return body, int.from_bytes(digest[:8], "big")

    def _pieces(self) -> Iterator[bytes]:
        head: dict[str, Any] = {"agent": self.agent, "format": CATALOG_FORMAT}
        if self.products:
            head["products"] = self.products
        yield orjson.dumps(head, option=orjson.OPT_SORT_KEYS)[:-1] + b',"tags":['  # the last of the keys
        tags, comma = iter(self.tags), b""
        while some := [tag.facts() for tag in islice(tags, 1000)]:
            yield comma + orjson.dumps(some, option=orjson.OPT_SORT_KEYS)[1:-1]
            comma = b","
        yield b"]}"

    @classmethod
    def decode(cls, payload: bytes) -> Catalog:
        """Of what `encode` or `packed` gave. Raises ValueError."""
        found = _object(envelope.opened(payload), "catalog", envelope.MOST)
        if found.get("format") != CATALOG_FORMAT:
            raise ValueError(f"catalog of an unknown format: {found.get('format')!r}")
        try:
            products = found.get("products", {})
            if not isinstance(products, dict):
                raise ValueError("catalog: products are not an object")  # noqa: TRY004 - a wrong message
            return cls(str(found["agent"]), tuple(CatalogTag(**tag) for tag in found["tags"]), products)
        except (KeyError, TypeError) as reason:
            raise ValueError(f"catalog: {reason}") from reason


def epoch_of(catalog: bytes) -> int:
    """The epoch of a catalog: the first eight bytes of the SHA-256 of what `encode` gives, big-endian, unsigned.

    Raises ValueError for an envelope that can't be opened.
    """
    return int.from_bytes(hashlib.sha256(envelope.opened(catalog)).digest()[:8], "big")


@dataclass(frozen=True, slots=True)
class Rejection:
    """A block that the data center will never take: it came whole, with the checksum `crc`, and can't be read."""

    sequence: int
    crc: int
    reason: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """The data center's "committed up to sequence `committed` of `stream`". 0 where it has nothing yet.

    `beyond` are closed intervals of what it has above that, in order: live blocks that overtook a backlog. The lowest
    `MOST_BEYOND` of them; without any the message is the one of versions that knew none. So it is with `rejected`.
    """

    stream: UUID
    committed: int
    beyond: tuple[tuple[int, int], ...] = ()
    rejected: tuple[Rejection, ...] = ()

    def encode(self) -> bytes:
        found: dict[str, Any] = {"stream": str(self.stream), "committed": self.committed}
        if self.beyond:
            found["beyond"] = self.beyond[:MOST_BEYOND]
        if self.rejected:
            found["rejected"] = [
                [each.sequence, each.crc, each.reason[:MOST_REASON]] for each in self.rejected[:MOST_REJECTED]
            ]
        return orjson.dumps(found)

    @classmethod
    def decode(cls, payload: bytes) -> Receipt:
        found = _object(payload, "receipt")
        committed: object = found.get("committed")
        if not _is_place(committed):
            raise ValueError(f"receipt: committed must be a sequence, not {committed!r}")
        beyond = found.get("beyond", [])
        if not isinstance(beyond, list) or len(beyond) > MOST_BEYOND:
            raise ValueError(f"receipt: beyond must be a list of at most {MOST_BEYOND} intervals")
        after = committed
        for span in beyond:
            fits = isinstance(span, list) and len(span) == 2 and all(map(_is_place, span))
            if not fits or not after < span[0] <= span[1]:
                raise ValueError(f"receipt: {span!r} is no interval above {after}")
            after = span[1]
        spans = tuple((first, last) for first, last in beyond)
        return cls(_uuid(found.get("stream"), "receipt"), committed, spans, _rejected(found.get("rejected", [])))


@dataclass(frozen=True, slots=True)
class State:
    """Whether an agent is there, and what it is doing. `facts` are counters for people; nothing is decided on them."""

    online: bool
    stream: UUID | None = None
    epoch: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        stream = str(self.stream) if self.stream else None
        epoch = f"{self.epoch:016x}" if self.epoch is not None else None
        return orjson.dumps({"online": self.online, "stream": stream, "epoch": epoch, "facts": self.facts})

    @classmethod
    def decode(cls, payload: bytes) -> State:
        found = _object(payload, "state")
        stream, epoch, facts = found.get("stream"), found.get("epoch"), found.get("facts")
        return cls(
            bool(found.get("online")),
            _uuid(stream, "state") if stream else None,
            int(epoch, 16) if isinstance(epoch, str) else None,
            facts if isinstance(facts, dict) else {},
        )


@dataclass(frozen=True, slots=True)
class CatalogWanted:
    """The one command of this version: the data center holds blocks of an epoch whose catalog it does not know."""

    epoch: int

    def encode(self) -> bytes:
        return orjson.dumps({"command": "catalog", "epoch": f"{self.epoch:016x}"})

    @classmethod
    def decode(cls, payload: bytes) -> CatalogWanted:
        found = _object(payload, "command")
        epoch = found.get("epoch")
        if found.get("command") != "catalog" or not isinstance(epoch, str):
            raise ValueError(f"unknown command: {found.get('command')!r}")
        return cls(int(epoch, 16))


@dataclass(frozen=True, slots=True)
class Broker:
    """An MQTT broker's address: `mqtt://[user:password@]host[:1883]`, `mqtts://` for TLS (port 8883)."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Broker:
        parts = urlsplit(url)
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/"):
            wanted = "mqtt://host:1883, or mqtts://host:8883 for TLS"
            raise ValueError(f"{without_password(url)!r} is not a broker; write {wanted}")
        tls = parts.scheme == "mqtts"
        user, secret = parts.username, parts.password
        return cls(
            parts.hostname,
            parts.port or (8883 if tls else 1883),
            tls,
            unquote(user) if user else None,
            unquote(secret) if secret else None,
        )


def without_password(url: str) -> str:
    """The URL as it may be logged and published: user name and password are left out."""
    try:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    except ValueError:
        return "(not a URL)"


def _object(payload: bytes, what: str, most: int = MAX_MESSAGE) -> dict[str, Any]:
    if len(payload) > most:
        raise ValueError(f"{what} of {len(payload)} bytes; the limit is {most}")
    found = orjson.loads(payload)
    if not isinstance(found, dict):
        raise ValueError(f"{what}: not a JSON object")  # noqa: TRY004  (a wrong message, not a wrong call)
    return found


def _rejected(found: object) -> tuple[Rejection, ...]:
    if not isinstance(found, list) or len(found) > MOST_REJECTED:
        raise ValueError(f"receipt: rejected must be a list of at most {MOST_REJECTED} blocks")
    for each in found:
        if not isinstance(each, list) or len(each) != 3 or not all(map(_is_place, each[:2])):
            raise ValueError(f"receipt: {each!r} is no rejection")
    return tuple(Rejection(sequence, crc, str(reason)[:MOST_REASON]) for sequence, crc, reason in found)


def _is_place(number: object) -> TypeGuard[int]:
    return type(number) is int and 0 <= number < 2**63


def _uuid(text: object, what: str) -> UUID:
    try:
        return UUID(str(text))
    except ValueError:
        raise ValueError(f"{what}: {text!r} is not a stream") from None
