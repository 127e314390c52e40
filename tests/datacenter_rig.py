"""What the tests of the data center share: real blocks, an ingest without a broker, a data center as a process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias
from uuid import UUID

import httpx

from agent import _native
from agent.model import Tag, Value, ValueType
from agent.wire import ROOT, Catalog, CatalogTag, Receipt, epoch_of
from datacenter import overview, query
from datacenter.ingest import Ingest
from datacenter.message import Message
from datacenter.query import Named, Span
from datacenter.store import Store
from tests.peers.process import Peer

Rows: TypeAlias = Sequence[tuple[int, int, Value, int]]

AGENT = "press-shop-1"
BEGIN = 1_750_000_000_000_000_000
ALL = Span(-(2**63), 2**63 - 1, 1_000_000)
TAGS = tuple(Tag(index, "press1", f"{type_}", f"hr:{index}", type_, f"88.1/press1.{type_}", unit="u")
             for index, type_ in enumerate(ValueType))  # fmt: skip
REAL = next(tag.index for tag in TAGS if tag.type is ValueType.FLOAT64)


def catalog(tags: Sequence[Tag] = TAGS, agent: str = AGENT) -> bytes:
    found = (CatalogTag(t.index, t.device, t.name, t.identifier, t.type.value, unit=t.unit) for t in tags)
    return Catalog(agent, tuple(found)).encode()


EPOCH = epoch_of(catalog())


def block(
    stream: UUID, sequence: int, rows: Rows | None = None, *, epoch: int = EPOCH, tags: Sequence[Tag] = TAGS
) -> bytes:
    """A sealed block; without rows it has three readings of the float64 tag, 1 ms apart, that name their sequence."""
    buffer = _native.Buffer(tags)
    start = BEGIN + sequence * 10**9
    buffer.push(rows or [(REAL, start + at * 10**6, sequence + at / 10, 0) for at in range(3)])
    sealed = buffer.seal(stream=stream.bytes, sequence=sequence, epoch=epoch, sealed_ns=start)
    assert sealed is not None
    return sealed.data


def gap(stream: UUID, first: int, last: int, readings: int, reason: str = "outbox full") -> bytes:
    return _native.gap(
        stream=stream.bytes,
        first=first,
        last=last,
        epoch=EPOCH,
        from_ns=BEGIN + first * 10**9,
        to_ns=BEGIN + last * 10**9,
        readings=readings,
        reason=reason,
        sealed_ns=BEGIN,
    ).data


def until(condition: Callable[[], Any], seconds: float = 40.0) -> Any:
    """Waits for a condition, and gives what it gave. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        time.sleep(0.01)
    return found


class Rig:
    """A store with its ingest, and what it acknowledged and published."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.ingest = Ingest(self.store, ROOT)
        self.published: list[tuple[str, bytes]] = []
        self.acknowledged: list[bytes] = []
        self._offered = 0

    def __enter__(self) -> Self:
        self.ingest.start(lambda topic, body: self.published.append((topic, body)), lambda: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.ingest.stop(30.0)
        self.store.close()

    def send(self, *bodies: bytes, word: str = "data", agent: str = AGENT, retained: bool = False) -> None:
        """Offers messages, and waits until all of them are settled and their receipts sent."""
        for body in bodies:
            self._offered += 1
            assert self.ingest.offer(Message(agent, word, body, retained, lambda body=body: self._done(body)))  # type: ignore[misc]
        until(lambda: len(self.acknowledged) == self._offered)
        # Receipts follow the acknowledgements; an empty message goes behind them.
        if word != "nothing":
            self.send(b"", word="nothing")

    def _done(self, body: bytes) -> None:
        self.acknowledged.append(body)

    def receipts(self, stream: UUID) -> list[int]:
        found = [Receipt.decode(body) for topic, body in self.published if topic == f"{ROOT}/{AGENT}/receipts"]
        return [receipt.committed for receipt in found if receipt.stream == stream]

    def values(self, tag: int = REAL) -> list[Any]:
        with self.store.snapshot() as view:
            who = query.named(view, TAGS[tag].identifier)
            return [] if who is None else [row[1] for row in query.readings(view, who, ALL).readings]

    def named(self, identifier: str) -> Named | None:
        with self.store.snapshot() as view:
            return query.named(view, identifier)

    def stream(self, stream: UUID) -> dict[str, Any]:
        with self.store.snapshot() as view:
            return next(found for found in overview.streams(view) if found["stream"] == str(stream))

    def gaps(self) -> list[tuple[int, int, int, str]]:
        """(first, last, readings, reason) of every gap."""
        with self.store.snapshot() as view:
            return [
                (first, last, readings, reason)
                for first, last, readings, reason in view.rows(
                    "SELECT first, last, readings, reason FROM gaps ORDER BY ALL"
                )
            ]


_SERVE = """\
import asyncio, json, sys
from pathlib import Path
from datacenter.run import serve

async def main():
    folder, broker, http = sys.argv[1:]
    await serve(store=Path(folder), broker=broker, http=http, root="headrace/v1", ca=None, mqtt="auto",
                stop=asyncio.Event(), ready=lambda facts: print(json.dumps(facts), flush=True))

asyncio.run(main())
"""


class DataCenter(Peer):
    """The data center as a process of its own. `home/store` is its store, `url` its HTTP address."""

    scheme = "http"

    def __init__(self, home: Path, broker: str) -> None:
        super().__init__(home)
        self.broker = broker

    def command(self) -> list[str]:
        return [sys.executable, "-c", _SERVE, str(self.home / "store"), self.broker, f"127.0.0.1:{self.port}"]

    def ready(self) -> bool:
        """Whether it is subscribed as well."""
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2.0).status_code == 200
        except httpx.HTTPError:
            return False
