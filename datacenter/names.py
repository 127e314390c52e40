"""Names: which tag key a block's tag index stands for. A key lives as long as a tag keeps its identity."""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson
import pyarrow as pa

from agent.model import ValueType
from agent.wire import Catalog, CatalogTag
from datacenter.grants import UNLABELLED
from datacenter.identity import lookup
from datacenter.rows import Bound
from datacenter.store import Store

Identity: TypeAlias = tuple[Any, ...]

MAX_TAG = 1_000_000
"""The highest tag index of a catalog that is accepted."""

_TAGS = pa.schema(
    [
        ("key", pa.int32()),
        ("agent", pa.string()),
        ("device", pa.string()),
        ("name", pa.string()),
        ("identifier", pa.string()),
        ("type", pa.string()),
        ("unit", pa.string()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("domain", pa.string()),
        ("level", pa.int64()),
        ("description", pa.string()),
        ("source", pa.string()),
        ("lookup", pa.string()),
    ]
)
_COLUMNS = ", ".join(_TAGS.names)
_LEVEL = _TAGS.names.index("level") - 1
"""Where a tag's facts, which are all but its key, have its level."""


def bind(store: Store, epoch: int, catalog: Catalog) -> bool:
    """Gives every tag of a catalog its key, within the writer's transaction. Returns whether a known tag's level rose.

    A tag that has the same agent, device, name, identifier, type and unit as one before keeps that one's key. Of its
    other facts only a higher level counts at once: catalogs also come late, with the blocks of a backlog, and what the
    newest says is for `describe`. Raises ValueError where the catalog can't be kept; then nothing is written.
    """
    rows = _rows(catalog)
    known = _known(store, catalog.agent)
    [(highest,)] = store.rows("SELECT coalesce(max(key), 0) FROM tags")
    changed: dict[int, Identity] = {}
    bindings: list[tuple[int, int]] = []
    rose = False
    for tag, facts in rows:
        key, now = known.get(facts[:6], (0, facts))
        if not key:
            highest = key = highest + 1
            changed[key] = now
        elif _secrecy(facts) > _secrecy(now):
            now = changed[key] = (*now[:_LEVEL], facts[_LEVEL], *now[_LEVEL + 1 :])
            rose = True
        known[facts[:6]] = (key, now)
        bindings.append((tag, key))
    _write(store, changed)
    if bindings:
        store.insert(
            "bindings",
            pa.table(
                {
                    "epoch": pa.repeat(pa.scalar(epoch, pa.uint64()), len(bindings)),
                    "tag": pa.array([tag for tag, _ in bindings], pa.uint32()),
                    "key": pa.array([key for _, key in bindings], pa.int32()),
                }
            ),
        )
    return rose


def describe(store: Store, epoch: int) -> None:
    """Makes what an epoch's catalog says of its tags the newest, levels that fall included. Writer's transaction."""
    [(body,)] = store.rows("SELECT body FROM catalogs WHERE epoch = ?", [epoch])
    catalog = Catalog.decode(body)
    try:
        rows = _rows(catalog)
    except ValueError:
        return  # an earlier version kept it; its tags stay as that one understood them
    known = _known(store, catalog.agent)
    changed = {}
    for _, facts in rows:
        key, before = known.get(facts[:6], (0, facts))
        if facts != before:
            changed[key] = facts
    _write(store, changed)


def _known(store: Store, agent: str) -> dict[Identity, tuple[int, Identity]]:
    """Identity -> (key, facts) of every tag of an agent."""
    rows = store.rows(f"SELECT {_COLUMNS} FROM tags WHERE agent = ?", [agent])  # noqa: S608 - names of our own
    return {tuple(found[:6]): (key, tuple(found)) for key, *found in rows}


def _write(store: Store, changed: dict[int, Identity]) -> None:
    if changed:
        rows = [dict(zip(_TAGS.names, (key, *facts), strict=True)) for key, facts in changed.items()]
        store.write("DELETE FROM tags WHERE list_contains(?, key)", [list(changed)])
        store.insert("tags", pa.Table.from_pylist(rows, schema=_TAGS))


def _secrecy(facts: Identity) -> int:
    level = facts[_LEVEL]
    return UNLABELLED if level is None else int(level)


def bound(store: Store, epoch: int) -> Bound:
    """The tags of an epoch."""
    rows = store.rows("SELECT b.tag, b.key, t.type FROM bindings b JOIN tags t USING (key) WHERE b.epoch = ?", [epoch])
    return Bound.of({tag: (key, type_) for tag, key, type_ in rows})


def _rows(catalog: Catalog) -> list[tuple[int, Identity]]:
    rows: dict[int, Identity] = {}
    for tag in catalog.tags:
        if type(tag.tag) is not int or not 0 <= tag.tag <= MAX_TAG or tag.tag in rows:
            raise ValueError(f"catalog: {tag.tag!r} is not a tag index, or is there twice")
        rows[tag.tag] = _facts(catalog.agent, tag)
    return list(rows.items())


def _facts(agent: str, tag: CatalogTag) -> Identity:
    words = (tag.device, tag.name, tag.identifier, tag.type, tag.unit, tag.domain, tag.description)
    if not all(isinstance(word, str) for word in words) or not tag.identifier:
        raise ValueError(f"catalog: tag {tag.tag} has a name, identifier, type or unit that is no text")
    if tag.type not in tuple(ValueType):
        raise ValueError(f"catalog: tag {tag.tag} is of an unknown type {tag.type!r}")
    try:
        limits = [None if limit is None else float(limit) for limit in (tag.low, tag.high)]
        source = orjson.dumps(tag.source, option=orjson.OPT_SORT_KEYS).decode()
    except (TypeError, ValueError, OverflowError) as reason:
        raise ValueError(f"catalog: tag {tag.tag}: {reason}") from reason
    if tag.level is not None and (type(tag.level) is not int or not -(2**63) <= tag.level < 2**63):
        raise ValueError(f"catalog: tag {tag.tag} has the level {tag.level!r}")
    # Below the lowest there is none: then it is taken for the most sensitive.
    level = tag.level if tag.level is not None and tag.level >= 1 else None
    return (
        agent,
        tag.device,
        tag.name,
        tag.identifier,
        tag.type,
        tag.unit,
        *limits,
        tag.domain,
        level,
        tag.description,
        source,
        lookup(tag.identifier),
    )
