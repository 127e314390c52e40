"""Tables: how the store is laid out, and how an older one becomes that. Only SQL; no I/O.

Each kind of values has two tables: `arrived_<kind>` as readings came, and `settled_<kind>` in runs ordered by tag and
time. A tag has one kind, so one tag's readings are in one pair. One table with a column for each kind took three times
as long to insert into: DuckDB pays for a column that holds nothing nearly as for one that does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from datacenter.kinds import SQL_OF

VERSION = 4
"""Version of the tables. A store of a later version is refused, never misread."""

FIRST = """
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
"""Version 1. No index and no primary key: one writer keeps rows unique, and an index on readings would cost more than
the rows."""


def arrived(kind: str) -> str:
    """The table of a kind's readings as they came."""
    return f"arrived_{kind}"


def settled(kind: str) -> str:
    """The table of a kind's readings in runs ordered by tag and time."""
    return f"settled_{kind}"


def of(kinds: Collection[str]) -> str:
    """Every reading of these kinds, for a FROM: key, time, quality, a column named as each kind, stream, sequence;
    `half` and `place` keep the order of arrival among readings of one tag."""
    return f"({' UNION ALL '.join(leg for kind in kinds for leg in _legs(kind, kinds))})"


def _legs(kind: str, kinds: Collection[str]) -> Iterator[str]:
    values = [f'{"value" if each == kind else f"CAST(NULL AS {SQL_OF[each]})"} AS "{each}"' for each in kinds]
    columns = f"key, time, quality, {', '.join(values)}, stream, sequence"
    for half, table in enumerate((settled(kind), arrived(kind))):
        yield f"SELECT {columns}, {half:d} AS half, rowid AS place FROM {table}"  # noqa: S608 - own names


WAITING = " UNION ALL ".join(f"SELECT '{kind}', count(*) FROM {arrived(kind)}" for kind in SQL_OF)  # noqa: S608
"""(kind, readings) that wait to be settled."""


def _pair(kind: str) -> Iterator[str]:
    for table in (settled(kind), arrived(kind)):
        yield (
            f"CREATE TABLE {table}(key INTEGER, time BIGINT, quality UINTEGER, value {SQL_OF[kind]}, stream INTEGER,"
            " sequence BIGINT)"
        )


def parted(kind: str) -> Iterator[str]:
    """Fills a kind's tables with its part of what version 3 had in two, in its order. The parameter has a 1 for each
    tag key that is of the kind. A join would do the same and lose the order."""
    for table, before in ((settled(kind), "settled"), (arrived(kind), "readings")):
        yield (
            f'INSERT INTO {table} SELECT key, time, quality, "{kind}", stream, sequence FROM {before}'  # noqa: S608
            " WHERE get_bit(CAST(? AS BIT), key) = 1"
        )


SINCE = {
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
    4: ";".join(statement for kind in SQL_OF for statement in _pair(kind)),
}
"""What each later version adds to the one before; an older store gets it when it is opened."""

PARTED = f"""
DROP VIEW every;
DROP TABLE settled;
DROP TABLE readings;
CREATE VIEW every AS FROM {of(SQL_OF)};
"""
"""What ends version 4's beginning, when all is `parted`."""
