"""The ledger: what of each stream is stored, missing or waiting for its catalog; written with the readings.

Every method that changes something runs inside `Store.transaction`, in the writer thread. After a transaction that did
not commit, `reload` brings the memory back to what the store holds.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from agent import _native
from agent.envelope import opened
from agent.errors import BlockError
from agent.wire import Catalog, epoch_of
from datacenter import accounts, again, names
from datacenter.accounts import Stream
from datacenter.bindings import Bindings
from datacenter.corrections import Corrections
from datacenter.losses import Loss, Losses
from datacenter.places import Places
from datacenter.rows import parts
from datacenter.store import Store
from datacenter.tables import arrived

PARKED_BYTES = 64 * 1024 * 1024
PARKED_BLOCKS = 10_000


class Outcome(Enum):
    """What became of one block."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    PARKED = "parked"
    REFUSED = "refused"
    """No room to park it: it has to come again."""


@dataclass(slots=True)
class _Pending:
    """Rows that wait for the next flush."""

    readings: list[pa.Table] = field(default_factory=list)
    blocks: list[dict[str, Any]] = field(default_factory=list)
    streams: dict[UUID, Stream] = field(default_factory=dict)


class Ledger:
    """The accounts of every stream, and the epochs whose catalogs are known."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.streams: dict[UUID, Stream] = {}
        self.parked: dict[tuple[UUID, int], tuple[int, str, int]] = {}
        """(stream, sequence) -> (epoch, agent, bytes) of every block that waits for its catalog."""
        self.losses: list[Loss] = []
        self._again: list[again.Came] = []
        self._corrections = Corrections(store)
        self._gaps = Losses(store, self._corrections)
        self.reload()

    def reload(self) -> None:
        """Reads the accounts from the store. Costs what lies above each stream's mark, not its whole history."""
        rows = self._store.rows
        self._pending, self.losses, self._again = _Pending(), [], []
        self._corrections.reload()
        self._bindings = Bindings(self._store)
        self._epochs = {epoch for (epoch,) in rows("SELECT epoch FROM catalogs")}
        self.streams = accounts.read(self._store)
        self.parked = {
            (stream, sequence): (epoch, agent, size)
            for stream, sequence, epoch, agent, size in rows(
                "SELECT stream, sequence, epoch, agent, octet_length(body) FROM parked"
            )
        }
        self.parked_bytes = sum(size for _, _, size in self.parked.values())
        self._known = set(self.streams)

    def committed(self, stream: UUID) -> int:
        """Everything up to this sequence is accounted for; 0 where the stream is unknown."""
        found = self.streams.get(stream)
        return found.places.committed if found else 0

    def beyond(self, stream: UUID, most: int) -> tuple[tuple[int, int], ...]:
        """The lowest closed intervals above `committed` that are accounted for, at most `most` of them."""
        found = self.streams.get(stream)
        return tuple(found.places.islands[:most]) if found else ()

    def learn(self, body: bytes, received_ns: int) -> int | None:
        """Keeps a catalog and binds its tags. Returns its epoch, or None where it is known already. ValueError."""
        body = opened(body)
        epoch = epoch_of(body)
        if epoch in self._epochs:
            return None
        catalog = Catalog.decode(body)
        if names.bind(self._store, epoch, catalog):
            # It may be an old one: the next of the newest blocks says whether the level stays.
            for account in self.streams.values():
                if account.agent == catalog.agent:
                    account.described = None
        self._store.write("INSERT INTO catalogs VALUES (?, ?, ?, ?)", [epoch, catalog.agent, body, received_ns])
        self._epochs.add(epoch)
        return epoch

    def add(self, agent: str, body: bytes, received_ns: int) -> tuple[UUID, Outcome]:
        """Takes one block: stores, parks or drops it. Raises BlockError, and changes nothing, where it is none."""
        header = _native.header(body)
        stream, first, last = UUID(bytes=header.stream), header.sequence, header.last_sequence
        if not 1 <= first <= last < 2**63:
            raise BlockError(f"a block at place {first} to {last}; places start at 1")
        if header.kind == "gap":
            return stream, self._add_gap(agent, stream, header)
        account = self.streams.get(stream)
        if account is not None and first in account.places and not self._reopens(account, first):
            self._again.append(again.Came(account.id, stream, agent, header, body))
            return stream, Outcome.DUPLICATE
        if header.kind == "correction":
            return stream, self._add_correction(agent, stream, header, body, received_ns)
        if header.epoch not in self._epochs:
            return stream, self._park(agent, stream, header, body, received_ns)
        self._store_block(agent, stream, body, received_ns)
        return stream, Outcome.STORED

    def unpark(self, epoch: int) -> list[tuple[str, bytes, int]]:
        """Takes out the blocks that waited for this epoch's catalog: (agent, block, received_ns), to be added anew."""
        rows = self._store.rows(
            "SELECT agent, body, received_ns FROM parked WHERE epoch = ? ORDER BY stream, sequence", [epoch]
        )
        self._store.write("DELETE FROM parked WHERE epoch = ?", [epoch])
        self.parked = {place: waits for place, waits in self.parked.items() if waits[0] != epoch}
        self.parked_bytes = sum(size for _, _, size in self.parked.values())
        return [(agent, body, received_ns) for agent, body, received_ns in rows]

    def flush(self) -> None:
        """Writes what is pending; `stored_ns` is the wall clock right before it."""
        pending, self._pending = self._pending, _Pending()
        now = time.time_ns()
        if pending.readings:
            for kind, part in parts(pa.concat_tables(pending.readings)):
                self._store.insert(arrived(kind), part)
        if pending.blocks:
            rows = pa.Table.from_pylist(pending.blocks, schema=_BLOCKS)
            self._store.insert("blocks", rows.append_column("stored_ns", pa.repeat(pa.scalar(now), len(rows))))
        for account in pending.streams.values():
            account.stored_ns = now
        accounts.write(self._store, pending.streams.values(), self._known)

    def close(self) -> None:
        """The last call of a transaction: writes what is pending, and looks at what came again."""
        self.flush()
        came, self._again = self._again, []
        for each in again.others(self._store, self._corrections, came):
            span = (each.header.sequence, each.header.last_sequence)
            loss = Loss(each.agent, each.stream, *span, each.header.readings, again.REASON, each.body)
            self.losses.append(loss)

    def _account(self, agent: str, stream: UUID) -> Stream:
        account = self.streams.get(stream)
        if account is None:
            account = self.streams[stream] = Stream(len(self.streams) + 1, stream, agent, Places())
        account.agent = agent
        self._pending.streams[stream] = account
        return account

    def _reopens(self, account: Stream, sequence: int) -> bool:
        """Whether a filled place is only claimed by a gap: then its block is welcome after all."""
        if not account.gapped:
            return False
        self.flush()
        return self._gaps.only_claimed(account, sequence)

    def _park(self, agent: str, stream: UUID, header: _native.Header, body: bytes, received_ns: int) -> Outcome:
        place = (stream, header.sequence)
        if place in self.parked:
            return Outcome.PARKED
        if len(self.parked) >= PARKED_BLOCKS or self.parked_bytes + len(body) > PARKED_BYTES:
            return Outcome.REFUSED
        self._store.write(
            "INSERT INTO parked VALUES (?, ?, ?, ?, ?, ?)", [*place, header.epoch, agent, body, received_ns]
        )
        self.parked[place] = (header.epoch, agent, len(body))
        self.parked_bytes += len(body)
        return Outcome.PARKED

    def _store_block(self, agent: str, stream: UUID, body: bytes, received_ns: int) -> None:
        decoded = _native.decode(body)
        header, rows, columns = decoded.header, pa.table(decoded), decoded.columns
        sequence = header.sequence
        reopened = stream in self.streams and sequence in self.streams[stream].places
        bound = self._bindings.of(header.epoch)
        if problem := bound.problem(columns):
            if not reopened:
                account = self._account(agent, stream)
                self._lose(account, header, header.readings, f"{problem} in the catalog {header.epoch:016x}", body)
                account.places.fill(sequence, sequence)
            return
        account = self._account(agent, stream)
        rows = bound.bind(rows, account.id, sequence)
        first_ns, last_ns, sealed_ns = header.first_ns, header.last_ns, header.sealed_ns
        if offset_ns := self._corrections.offset(agent, stream, sequence):
            times = self._corrections.corrected(agent, rows.column("key"), rows.column("time"), offset_ns)
            rows = rows.set_column(rows.column_names.index("time"), "time", times)
            first_ns, last_ns, sealed_ns = pc.min(times).as_py(), pc.max(times).as_py(), sealed_ns + offset_ns
        self._pending.readings.append(rows)
        times_ns = (first_ns, last_ns, sealed_ns)
        self._note_block(account, header, readings=len(rows), times=times_ns, body=body, received_ns=received_ns)
        if reopened:
            self.flush()
            self._gaps.shrink(account, sequence, len(rows))
        self._describe(account, header.epoch, sequence, sealed_ns)
        if len(rows) < header.readings:
            reason = "; ".join(f"tag {column.tag}: {column.problem}" for column in columns if column.problem)
            self._lose(account, header, header.readings - len(rows), reason, body)

    def _describe(self, account: Stream, epoch: int, sequence: int, sealed_ns: int) -> None:
        """What is known of tags, and with it who may read them, is what the catalog of an agent's newest block says:
        not the catalog that came last, which may belong to a backlog, nor one that is known and holds again."""
        if sequence < account.places.last:
            return
        account.sealed_ns = sealed_ns
        if account.described == epoch:
            return
        # An agent with an uplink for level 3 writes two streams; one that was installed anew has left the older one.
        ours = [each for each in self.streams.values() if each.agent == account.agent and each.id > account.id]
        if all(sealed_ns > each.sealed_ns for each in ours):
            names.describe(self._store, epoch)
            account.described = epoch

    def _note_block(
        self,
        account: Stream,
        header: _native.Header,
        *,
        readings: int,
        times: tuple[int, int, int],
        body: bytes,
        received_ns: int,
    ) -> None:
        """`times`: the first, the last, and when it was sealed."""
        first_ns, last_ns, sealed_ns = times
        self._pending.blocks.append(
            {
                "stream": account.id,
                "sequence": header.sequence,
                "readings": readings,
                "first_ns": first_ns,
                "last_ns": last_ns,
                "sealed_ns": sealed_ns,
                "bytes": len(body),
                "synchronized": header.synchronized,
                "epoch": header.epoch,
                "received_ns": received_ns,
                "sha256": hashlib.sha256(body).digest(),
            }
        )
        account.places.fill(header.sequence, header.sequence)
        account.readings += readings
        account.blocks += 1
        account.bytes += len(body)

    def _add_correction(
        self, agent: str, stream: UUID, header: _native.Header, body: bytes, received_ns: int
    ) -> Outcome:
        self.flush()
        corrected = self.streams.get(UUID(bytes=header.corrects[0])) if header.corrects else None
        ours = corrected is not None and corrected.agent == agent
        self._corrections.learn(agent, header, corrected.id if corrected and ours else None)
        reopened = stream in self.streams and header.sequence in self.streams[stream].places
        account = self._account(agent, stream)
        times = (header.first_ns, header.last_ns, header.sealed_ns)
        self._note_block(account, header, readings=0, times=times, body=body, received_ns=received_ns)
        if reopened:
            self.flush()
            self._gaps.shrink(account, header.sequence, 0)
        return Outcome.STORED

    def _lose(self, account: Stream, header: _native.Header, readings: int, reason: str, body: bytes) -> None:
        """Readings of a block that can't be read: a gap of our own making, and the block is kept for people."""
        place = header.sequence
        self._gaps.add(account, (place, place), header, readings=readings, reason=reason)
        self.losses.append(Loss(account.agent, account.stream, place, place, readings, reason, body))

    def _add_gap(self, agent: str, stream: UUID, header: _native.Header) -> Outcome:
        self.flush()
        loss = self._gaps.tell(self._account(agent, stream), header)
        if loss is None:
            return Outcome.DUPLICATE
        self.losses.append(loss)
        return Outcome.STORED


_BLOCKS = pa.schema(
    [
        ("stream", pa.int32()),
        ("sequence", pa.int64()),
        ("readings", pa.int64()),
        ("first_ns", pa.int64()),
        ("last_ns", pa.int64()),
        ("sealed_ns", pa.int64()),
        ("bytes", pa.int64()),
        ("epoch", pa.uint64()),
        ("received_ns", pa.int64()),
        ("sha256", pa.binary()),
        ("synchronized", pa.bool_()),
    ]
)
