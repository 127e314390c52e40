"""The store: one DuckDB file in one folder. The only file that imports duckdb.

One thread writes, through `transaction`; any thread reads, through `snapshot`. What `transaction` committed is on disk.
Its tables are those of `datacenter.tables`. Who reads readings reads `tables.of` the kinds that it wants, or the view
`every`, which is `tables.of` all of them; so it does not matter what `datacenter.settle` moved when.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import duckdb
import pyarrow as pa

from agent.errors import HeadraceError, unopened
from agent.model import ValueType
from datacenter import tables
from datacenter.identity import lookup
from datacenter.kinds import KIND_OF

log = logging.getLogger("headrace.store")

Row: TypeAlias = tuple[Any, ...]

_OF_THE_ROWS = (duckdb.DataError, duckdb.IntegrityError, duckdb.ProgrammingError, duckdb.NotSupportedError)


class StoreError(HeadraceError):
    """The store can't be opened: in use, damaged, or of another version. The message says which."""


class Unwritable(HeadraceError):
    """The store can't write now (disk full, no memory): nothing was committed; try again after a pause."""


class Broken(HeadraceError):
    """DuckDB gave up on this database until it is opened again. Nothing of the last transaction was committed."""


class Store:
    """An open store. `client` is its own uuid, for as long as the folder lives."""

    def __init__(self, folder: Path) -> None:
        """Opens the store in `folder`, or makes it. Raises StoreError."""
        self.folder = folder
        self.path = folder / "headrace.duckdb"
        self._closed = threading.Event()
        self._settling: duckdb.DuckDBPyConnection | None = None
        self._moving = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = duckdb.connect(
                str(self.path),
                config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"},
            )
        except (duckdb.Error, OSError) as reason:
            raise StoreError(_explain(self.path, reason)) from reason
        try:
            # No query may reach other files, whatever comes in over HTTP.
            self._writer.execute("SET enable_external_access = false")
            self.client = self._prepare()
        except (duckdb.Error, StoreError) as reason:
            self._writer.close()
            if isinstance(reason, StoreError):
                raise
            raise StoreError(_explain(self.path, reason)) from reason

    def _prepare(self) -> str:
        found = self._writer.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'meta'").fetchone()
        with self.transaction():
            if not found or not found[0]:
                self._run(tables.FIRST)
                self.write("INSERT INTO meta VALUES ('schema', '1'), ('client', ?)", [str(uuid4())])
            meta: dict[str, str] = dict(self.rows("SELECT name, value FROM meta"))
            version = meta.get("schema", "")
            if version not in map(str, range(1, tables.VERSION + 1)):
                raise StoreError(f"{self.path} has tables of version {version}; this program writes {tables.VERSION}")
            if found and found[0] and version != str(tables.VERSION):
                log.warning(
                    "the store is laid out anew, from version %s to %d: some seconds for each ten million readings, and"
                    " room for a second copy meanwhile",
                    *(version, tables.VERSION),
                    extra={"event": "store_laid_out", "version": int(version)},
                )
            for later in range(int(version) + 1, tables.VERSION + 1):
                self._run(tables.SINCE[later])
                if later == 3:
                    self._fill_lookups()
                if later == 4:
                    self._part_by_kind()
                self.write("UPDATE meta SET value = ? WHERE name = 'schema'", [str(later)])
        return str(meta["client"])

    def _fill_lookups(self) -> None:
        found = [identifier for (identifier,) in self.rows("SELECT DISTINCT identifier FROM tags")]
        if found:
            self._writer.register("known", pa.table({"identifier": found, "lookup": [*map(lookup, found)]}))
            self.write("UPDATE tags SET lookup = k.lookup FROM known k WHERE k.identifier = tags.identifier")
            self._writer.unregister("known")

    def _part_by_kind(self) -> None:
        of = {key: KIND_OF[ValueType(type_)] for key, type_ in self.rows("SELECT key, type FROM tags")}
        for kind in dict.fromkeys(of.values()):
            keys = "".join("1" if of.get(key) == kind else "0" for key in range(max(of) + 1))
            for statement in tables.parted(kind):
                self.write(statement, [keys])
        self._run(tables.PARTED)

    def _run(self, statements: str) -> None:
        for statement in filter(str.strip, statements.split(";")):
            self.write(statement)

    @contextmanager
    def transaction(self, *, changes: bool = False) -> Iterator[None]:
        """All or nothing: commits at its end, rolls back where anything was raised. Writer thread only.

        `changes` is whether readings that are stored already may be changed. Raises Unwritable or Broken where the disk
        or the database, not the caller, is the reason.
        """
        # DuckDB lets one transaction move rows away that another changes, and keeps the move: the change would be gone.
        with self._moving if changes else nullcontext(), _committed(self._writer):
            yield

    def settle(self, kind: str, readings: int) -> int:
        """Moves that many of a kind's oldest arrivals into a run ordered by tag and time, all or nothing. One thread's.

        Goes on beside the writer while that only appends to what this takes from. Returns how many were moved. Raises
        Unwritable, Broken, or TimeoutError after `stop_settling`.
        """
        with self._moving:
            return self._move(kind, readings)

    def _move(self, kind: str, readings: int) -> int:
        came, run = tables.arrived(kind), tables.settled(kind)
        cursor = self._writer.cursor()
        try:
            with _committed(cursor):
                self._settling = cursor
                [(until, moved)] = cursor.execute(
                    f"SELECT max(rowid), count(*) FROM (SELECT rowid FROM {came} LIMIT ?)",  # noqa: S608 - own names
                    [readings],
                ).fetchall()
                if moved:
                    # By rowid at last: readings of one tag and time stay in the order in which they came.
                    cursor.execute(f"INSERT INTO {run} FROM {came} WHERE rowid <= {until:d} ORDER BY key, time, rowid")
                    cursor.execute(f"DELETE FROM {came} WHERE rowid <= {until:d}")  # noqa: S608
        except duckdb.InterruptException as reason:
            raise TimeoutError("settling was stopped") from reason
        finally:
            self._settling = None
            cursor.close()
        return int(moved)

    def stop_settling(self) -> None:
        """Ends a `settle` that runs, from another thread: it moves nothing."""
        if (cursor := self._settling) is not None:
            cursor.interrupt()

    def write(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Runs one statement of a transaction."""
        self._writer.execute(statement, list(values))

    def insert(self, table: str, rows: pa.Table) -> None:
        """Appends an Arrow table whose columns are those of `table`, by name."""
        self._writer.register("incoming", rows)
        try:
            columns = ", ".join(f'"{name}"' for name in rows.column_names)
            self._writer.execute(f"INSERT INTO {table}({columns}) SELECT * FROM incoming")  # noqa: S608 - own names
        finally:
            self._writer.unregister("incoming")

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        """Reads as the writer sees it, its own transaction included. Writer thread only."""
        return list(self._writer.execute(query, list(values)).fetchall())

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """One consistent view for reading, in any thread."""
        cursor = self._writer.cursor()
        try:
            cursor.begin()
            yield Snapshot(cursor)
        except duckdb.InterruptException as reason:
            raise TimeoutError("the query was stopped") from reason
        finally:
            cursor.close()

    def close(self) -> None:
        """Folds the log into the file and closes; twice is fine."""
        if not self._closed.is_set():
            self._closed.set()
            self._writer.close()


class Snapshot:
    """The store as it was when the snapshot was taken. For one thread, `stop` excepted."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor
        self._stopped = False

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Row]:
        self._check()
        return list(self._cursor.execute(query, list(values)).fetchall())

    def arrow(self, query: str, values: Sequence[Any] = ()) -> pa.Table:
        self._check()
        return self._cursor.sql(query, params=list(values)).to_arrow_table()

    def stop(self) -> None:
        """Ends the running query, and every one after it, from another thread; in its own it raises TimeoutError."""
        self._stopped = True
        self._cursor.interrupt()

    def _check(self) -> None:
        if self._stopped:
            raise TimeoutError("the query was stopped")


@contextmanager
def _committed(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    try:
        connection.begin()
        yield
        connection.commit()
    except BaseException as reason:
        with suppress(duckdb.Error):
            connection.rollback()
        if isinstance(reason, (duckdb.FatalException, duckdb.InternalException)):
            raise Broken(str(reason)) from reason
        # Whatever is not about the rows themselves is about the disk or the memory: "Failed to commit" of a full disk
        # is a TransactionException, for one. Waiting is right there, and setting a block aside would lose it.
        stopped = isinstance(reason, duckdb.InterruptException)
        if (
            isinstance(reason, (duckdb.Error, OSError, MemoryError))
            and not isinstance(reason, _OF_THE_ROWS)
            and not stopped
        ):
            raise Unwritable(str(reason)) from reason
        raise


def _explain(path: Path, reason: Exception) -> str:
    text = str(reason)
    if "Could not set lock" in text or "being used by another process" in text:
        return f"the store {path} is in use by another process; stop that one, or set another [datacenter] store"
    if "not a valid DuckDB" in text:
        return f"{path} is not a store; move it away, or set another [datacenter] store"
    return f"the store {unopened(path, reason, 'store in [datacenter]')}"
