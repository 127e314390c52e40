"""Accounts: what of each stream is stored or known to be lost, as the store's table `streams` has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from datacenter.places import Places
from datacenter.store import Store

_WORDS = ("agent", "committed", "last", "readings", "blocks", "bytes", "stored_ns")


@dataclass(slots=True)
class Stream:
    """One stream's account. `gapped` is whether any of its places was ever claimed by a gap; `described` the epoch of
    its newest block, where that epoch's catalog is what is known of its tags."""

    id: int
    stream: UUID
    agent: str
    places: Places
    readings: int = 0
    blocks: int = 0
    bytes: int = 0
    stored_ns: int = 0
    gapped: bool = False
    described: int | None = None
    sealed_ns: int = 0
    """When its newest block was sealed, of those that came since the start."""

    @property
    def row(self) -> tuple[str, int, int, int, int, int, int]:
        """What changes of its row in the store."""
        counted = (self.readings, self.blocks, self.bytes, self.stored_ns)
        return self.agent, self.places.committed, self.places.last, *counted


def read(store: Store) -> dict[UUID, Stream]:
    """Every account. Costs what lies above each stream's mark, not its whole history."""
    found = {
        stream: Stream(id_, stream, agent, Places(committed), *counted)
        for id_, stream, agent, committed, *counted in store.rows(
            "SELECT id, stream, agent, committed, readings, blocks, bytes, stored_ns FROM streams"
        )
    }
    by_id = {account.id: account for account in found.values()}
    for id_, sequence in store.rows(
        "SELECT b.stream, b.sequence FROM blocks b JOIN streams s ON s.id = b.stream"
        " WHERE b.sequence > s.committed ORDER BY ALL"
    ):
        by_id[id_].places.fill(sequence, sequence)
    for id_, first, last in store.rows("SELECT stream, first, last FROM gaps ORDER BY ALL"):
        by_id[id_].places.fill(first, last)
        by_id[id_].gapped = True
    return found


def write(store: Store, accounts: Iterable[Stream], known: set[UUID]) -> None:
    """Within a transaction. `known` are the streams that have a row, in one statement: of many agents, a batch has a
    block of each. New ones are added to it."""
    accounts = list(accounts)
    there = [account for account in accounts if account.stream in known]
    if len(there) == 1:  # for which the statement of many would be planned longer than it runs
        changed = ", ".join(f"{word} = ?" for word in _WORDS)
        store.write(f"UPDATE streams SET {changed} WHERE id = ?", [*there[0].row, there[0].id])  # noqa: S608
    elif there:
        columns = zip(*((account.id, *account.row) for account in there), strict=True)
        given = ", ".join(f"unnest(?) AS {word}" for word in ("id", *_WORDS))
        changed = ", ".join(f"{word} = given.{word}" for word in _WORDS)
        store.write(
            f"UPDATE streams SET {changed} FROM (SELECT {given}) given WHERE streams.id = given.id",  # noqa: S608
            [list(column) for column in columns],
        )
    for account in accounts:
        if account.stream not in known:
            store.write(
                "INSERT INTO streams(id, stream, agent, committed, last, readings, blocks, bytes, stored_ns)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [account.id, account.stream, *account.row],
            )
            known.add(account.stream)
