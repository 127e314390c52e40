"""What comes while a transaction began only just now shares the next one; a backlog, a greeting, a stop never wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

from agent.wire import ROOT, Receipt
from datacenter.ingest import LITTLE, Ingest
from datacenter.message import Message
from datacenter.store import Store
from tests.datacenter_rig import AGENT, block, catalog, until

LONG = 600.0
"""Seconds that no test waits: what does not wait for its turn is seen to go through."""


class Paced:
    """An ingest that has had its first transaction just now: that of the catalog."""

    def __init__(self, folder: Path, pace: float) -> None:
        self.store = Store(folder)
        self.ingest = Ingest(self.store, ROOT, pace=pace)
        self.acknowledged: list[float] = []
        self.receipts: list[Receipt] = []
        self.began = time.monotonic()
        self.ingest.start(lambda _, body: self.receipts.append(Receipt.decode(body)), lambda: None)
        self.offer("catalog", catalog())
        until(lambda: self.acknowledged)

    def offer(self, word: str, body: bytes) -> None:
        assert self.ingest.offer(Message(AGENT, word, body, False, lambda: self.acknowledged.append(time.monotonic())))

    def offer_blocks(self, stream: UUID, first: int, last: int) -> None:
        for sequence in range(first, last + 1):
            self.offer("data", block(stream, sequence))


@contextmanager
def paced(folder: Path, pace: float) -> Iterator[Paced]:
    found = Paced(folder, pace)
    try:
        yield found
    finally:
        assert found.ingest.stop(5.0)
        found.store.close()


def test_little_waits_for_its_turn_and_then_goes_in_one_transaction(tmp_path: Path) -> None:
    with paced(tmp_path, 0.5) as it:
        it.offer_blocks(uuid4(), 1, 1)
        until(lambda: it.receipts)
        assert it.acknowledged[1] - it.began >= 0.5
        assert it.ingest.counters.commits == 2


def test_a_backlog_does_not_wait(tmp_path: Path) -> None:
    stream = uuid4()
    with paced(tmp_path, LONG) as it:
        it.offer_blocks(stream, 1, LITTLE - 1)
        assert (len(it.acknowledged), it.receipts) == (1, [])
        it.offer_blocks(stream, LITTLE, LITTLE)
        until(lambda: it.receipts)
        assert [receipt.committed for receipt in it.receipts] == [LITTLE]
        assert it.ingest.counters.commits == 2
        it.offer_blocks(stream, LITTLE + 1, 3 * LITTLE)
        until(lambda: it.receipts[-1].committed == 3 * LITTLE)


def test_a_greeting_does_not_wait_and_takes_along_what_does(tmp_path: Path) -> None:
    with paced(tmp_path, LONG) as it:
        it.offer_blocks(uuid4(), 1, 2)
        it.ingest.greet()
        until(lambda: it.receipts)
        assert it.receipts[0].committed == 2


def test_a_stop_does_not_wait_and_leaves_what_waits_to_come_again(tmp_path: Path) -> None:
    with paced(tmp_path, LONG) as it:
        it.offer_blocks(uuid4(), 1, 2)
        assert it.ingest.stop(2.0)
        assert (len(it.acknowledged), it.receipts, it.ingest.counters.stored) == (1, [], 0)
