"""The store: one DuckDB file in one folder. The only file that imports duckdb.

One thread writes, through `transaction`; any thread reads, through `snapshot`. What `transaction` committed is on disk.
Readings are in two tables: `readings` as they came, and `settled` in runs ordered by tag and time, into which
`datacenter.settle` moves them. Who reads, reads the view `every`: its `half` and `place` keep the order of arrival.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import duckdb
import pyarrow as pa

from agent.errors import HeadraceError
from datacenter.identity import lookup

SCHEMA = 3
"""Version of the tables. A store of a later version is refused, never misread."""

Row: TypeAlias = tuple[Any, ...]

# No index and no primary key: one writer keeps rows unique, and an index on `readings` would cost more than the rows.
_TABLES = """
CREATE TABLE meta(name VARCHAR, value VARCHAR);
CREATE TABLE catalogs(epoch UBIGINT, agent VARCHAR, body BLOB, received_ns BIGINT);
CREATE TABLE tags(key INTEGER, identifier VARCHAR, agent VARCHAR, device VARCHAR, name VARCHAR, type VARCHAR,
    unit VARCHAR, low DOUBLE, high DOUBLE, domain VARCHAR, level BIGINT, description VARCHAR, source VARCHAR);
CREATE TABLE bindings(epoch UBIGINT, tag UINTEGER, key INTEGER);
CREATE TABLE streams(id INTEGER, stream UUID, agent VARCHAR, committed BIGINT, last BIGINT, readings BIGINT,
    blocks BIGINT, bytes BIGINT, stored_ns BIGINT);
CREATE TABLE blocks(stream INTEGER, sequence BIGINT, readings BIGINT, first_ns BIGINT, last_ns BIGINT,
    sealed_ns BIGINT, stored_ns BIGINT, bytes BIGINT);
CREATE TABLE gaps(stream INTEGER, first BIGINT, last BIGINT, from_ns BIGINT, to_ns BIGINT, readings BIGINT,
    reason VARCHAR);
CREATE TABLE parked(stream UUID, sequence BIGINT, epoch UBIGINT, agent VARCHAR, body BLOB, received_ns BIGINT);
CREATE TABLE agents(agent VARCHAR, state VARCHAR, received_ns BIGINT);
CREATE TABLE readings(key INTEGER, time BIGINT, quality UINTEGER, boolean BOOLEAN, integer BIGINT, "unsigned" UBIGINT,
    real DOUBLE, text VARCHAR, stream INTEGER, sequence BIGINT);
"""
_SINCE = {
    2: """
ALTER TABLE readings ADD COLUMN bytes BLOB;
ALTER TABLE readings ADD COLUMN boolean_array BOOLEAN[];
ALTER TABLE readings ADD COLUMN integer_array BIGINT[];
ALTER TABLE readings ADD COLUMN unsigned_array UBIGINT[];
ALTER TABLE readings ADD COLUMN real_array DOUBLE[];
ALTER TABLE readings ADD COLUMN text_array VARCHAR[];
ALTER TABLE readings ADD COLUMN bytes_array BLOB[];
""",
    3: """
ALTER TABLE blocks ADD COLUMN epoch UBIGINT;
ALTER TABLE blocks ADD COLUMN received_ns BIGINT;
ALTER TABLE blocks ADD COLUMN sha256 BLOB;
ALTER TABLE tags ADD COLUMN lookup VARCHAR;
CREATE TABLE settled AS SELECT * FROM readings LIMIT 0;
CREATE VIEW every AS SELECT *, 0 AS half, rowid AS place FROM settled
    UNION ALL SELECT *, 1, rowid FROM readings;
ALTER TABLE blocks ADD COLUMN synchronized BOOLEAN;
ALTER TABLE gaps ADD COLUMN synchronized BOOLEAN;
CREATE TABLE corrections(stream UUID, first BIGINT, last BIGINT, offset_ns BIGINT, agent VARCHAR, by_stream UUID,
    by_sequence BIGINT);
""",
}
"""What each later version of the tables adds to the one before; an older store gets it when it is opened."""


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
        tables = self._writer.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'meta'").fetchone()
        with self.transaction():
            if not tables or not tables[0]:
                self._run(_TABLES)
                self.write("INSERT INTO meta VALUES ('schema', '1'), ('client', ?)", [str(uuid4())])
            meta: dict[str, str] = dict(self.rows("SELECT name, value FROM meta"))
            version = meta.get("schema", "")
            if version not in map(str, range(1, SCHEMA + 1)):
                raise StoreError(f"{self.path} has tables of version {version}; this program writes {SCHEMA}")
            for later in range(int(version) + 1, SCHEMA + 1):
                self._run(_SINCE[later])
                if later == 3:
                    self._fill_lookups()
                self.write("UPDATE meta SET value = ? WHERE name = 'schema'", [str(later)])
        return str(meta["client"])

    def _fill_lookups(self) -> None:
        found = [identifier for (identifier,) in self.rows("SELECT DISTINCT identifier FROM tags")]
        if found:
            self._writer.register("known", pa.table({"identifier": found, "lookup": [*map(lookup, found)]}))
            self.write("UPDATE tags SET lookup = k.lookup FROM known k WHERE k.identifier = tags.identifier")
            self._writer.unregister("known")

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

    def settle(self, readings: int) -> int:
        """Moves that many of the oldest arrivals into a run ordered by tag and time, all or nothing. One thread's.

        Goes on beside the writer while that only appends to what this takes from. Returns how many were moved. Raises
        Unwritable, Broken, or TimeoutError after `stop_settling`.
        """
        with self._moving:
            return self._move(readings)

    def _move(self, readings: int) -> int:
        cursor = self._writer.cursor()
        try:
            with _committed(cursor):
                self._settling = cursor
                [(until, moved)] = cursor.execute(
                    "SELECT max(rowid), count(*) FROM (SELECT rowid FROM readings LIMIT ?)", [readings]
                ).fetchall()
                if moved:
                    names = self._used(cursor, until)
                    # By rowid at last: readings of one tag and time stay in the order in which they came.
                    cursor.execute(
                        f"INSERT INTO settled({names}) SELECT {names} FROM readings"  # noqa: S608 - own names
                        f" WHERE rowid <= {until:d} ORDER BY key, time, rowid"
                    )
                    cursor.execute(f"DELETE FROM readings WHERE rowid <= {until:d}")  # noqa: S608 - a number
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

    @staticmethod
    def _used(cursor: duckdb.DuckDBPyConnection, until: int) -> str:
        """The columns that hold anything up to a row: most kinds of values do not, and would be sorted for nothing."""
        names = [f'"{name}"' for name, *_ in cursor.execute("DESCRIBE readings").fetchall()]
        counts = cursor.execute(
            f"SELECT {', '.join(f'count({name})' for name in names)} FROM readings WHERE rowid <= {until:d}"  # noqa: S608
        ).fetchall()[0]
        return ", ".join(name for name, count in zip(names, counts, strict=True) if count)

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
    return f"the store {path} can't be opened: {text}"
