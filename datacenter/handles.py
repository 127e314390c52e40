"""The data center as a resolver: an identifier's record in the JSON form of the Handle.Net HTTP API (manual, 14.8).

The attributes are those of the metadata profile META_ACQ_POINT: from index 2000 on, text only, 255 characters at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import orjson

from datacenter.moment import spelled
from datacenter.query import Named
from datacenter.store import Snapshot

TTL = 3600
"""Seconds for which a client may keep a record: labels and addresses change with an epoch."""
OK, NOT_FOUND, NO_VALUES, NOT_ALLOWED, TOKEN_WANTED, TOKEN_WRONG = 1, 100, 200, 401, 402, 403
_LONGEST = 255

# Index, name in the profile, and under which names a catalog may have it.
_PROFILE: tuple[tuple[int, str, tuple[str, ...]], ...] = (
    (2000, "name_zh", ("name_zh",)),
    (2001, "name_en", ("name_en", "name")),
    (2002, "unit", ("unit",)),
    (2003, "dtype", ("type",)),
    (2004, "eu_low", ("eu_low", "low")),
    (2005, "eu_high", ("eu_high", "high")),
    (2006, "sampling_ms", ("sampling_ms",)),
    (2007, "semantic_id", ("semantic_id", "semantic")),
    (2008, "domain", ("domain",)),
    (2009, "level", ("level",)),
    (2010, "category", ("category",)),
    (2011, "share_policy", ("share_policy",)),
    (2012, "retention_days", ("retention_days",)),
    (2013, "owner", ("owner",)),
    (2014, "product_model", ("product_model", "model")),
    (2015, "serial", ("serial", "serial_number")),
    (2016, "manufacturer", ("manufacturer",)),
    (2017, "endpoint_url", ()),
    (2018, "calibration_due", ("calibration_due",)),
)


def record(view: Snapshot, who: Named, base: str) -> dict[str, Any]:
    """The whole record. `base` is the URL that the caller reached the data center at, without a slash at its end."""
    facts, received_ns = _facts(view, who)
    url = f"{base}/v1/readings?id={quote(who.identifier, safe='')}"
    values = [_value(1, "URL", url, received_ns)]
    for index, name, keys in _PROFILE:
        found = url if name == "endpoint_url" else next((facts[key] for key in keys if facts.get(key)), None)
        if name == "level":
            found = who.level
        if found is not None and not isinstance(found, (dict, list)):
            values.append(_value(index, name, str(found)[:_LONGEST], received_ns))
    if facts.get("description"):
        values.append(_value(3000, "DESC", str(facts["description"])[:_LONGEST], received_ns))
    return {"responseCode": OK, "handle": who.identifier, "values": values}


def chosen(found: dict[str, Any], types: Sequence[str], indexes: Sequence[int]) -> dict[str, Any]:
    """The values of these types or indexes, all where neither is named. A type with a point at its end, and any type,
    stands for its subtypes too; case does not count."""
    if not types and not indexes:
        return found
    values = [
        value
        for value in found["values"]
        if value["index"] in indexes or any(_is(value["type"].lower(), type_.lower()) for type_ in types)
    ]
    return {**found, "responseCode": OK if values else NO_VALUES, "values": values}


def _is(type_: str, wanted: str) -> bool:
    return type_ == wanted.removesuffix(".") or type_.startswith(wanted if wanted.endswith(".") else f"{wanted}.")


def _value(index: int, type_: str, text: str, timestamp_ns: int) -> dict[str, Any]:
    return {
        "index": index,
        "type": type_,
        "data": {"format": "string", "value": text},
        "ttl": TTL,
        "timestamp": spelled(timestamp_ns),
    }


def _facts(view: Snapshot, who: Named) -> tuple[dict[str, Any], int]:
    """What the newest catalog that has the identifier says of it, and when that came (ns UTC)."""
    rows = view.rows(
        "SELECT c.body, c.received_ns, b.tag FROM catalogs c JOIN bindings b ON b.epoch = c.epoch"
        " WHERE list_contains(?, b.key) ORDER BY c.received_ns DESC, b.key DESC LIMIT 1",
        [list(who.keys)],
    )
    for body, received_ns, tag in rows:
        for entry in orjson.loads(body)["tags"]:
            if entry.get("tag") == tag:
                return entry, received_ns
    return {}, 0
