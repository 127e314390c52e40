"""Lineage: from a stored reading back to the block that brought it, and to the device and address it was read from."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from datacenter.query import Named, kinds_in, quoted, readings_of, spelled, where
from datacenter.store import Snapshot

MOST = 1000
"""Readings of one identifier at one time."""


def of(view: Snapshot, who: Named, time_ns: int) -> list[dict[str, Any]]:
    """Where every reading of this identifier at this very time came from, in their order.

    `block.sha256` is of the block's bytes as they came (the same as of an exported block), null where it was stored by
    a version that did not keep it. What the catalog of the block's own epoch says of the tag, it says here.
    """
    columns = [quoted(kind) for kind in kinds_in([who])]
    rows = view.rows(
        "SELECT r.time, r.quality, r.sequence, r.key, s.stream, s.agent, b.sha256, b.bytes, b.readings, b.first_ns,"  # noqa: S608
        f" b.last_ns, b.epoch, b.sealed_ns, b.received_ns, b.stored_ns, {', '.join(f'r.{name}' for name in columns)}"
        f" FROM (SELECT * FROM {readings_of([who])} WHERE {where([who], time_ns, time_ns + 1)}) r"
        " JOIN streams s ON s.id = r.stream JOIN blocks b ON b.stream = r.stream AND b.sequence = r.sequence"
        " ORDER BY r.time, r.stream, r.sequence, r.key, r.half, r.place LIMIT ?",
        [MOST],
    )
    found = []
    for row in rows:
        at, quality, sequence, key, stream, agent, digest, size, count, first_ns, last_ns, epoch, *times = row[:15]
        sealed_ns, received_ns, stored_ns = times
        found.append(
            {
                "time_ns": at,
                "value": spelled(next((value for value in row[15:] if value is not None), None)),
                "quality": quality,
                "agent": agent,
                "stream": str(stream),
                "sequence": sequence,
                "block": {
                    "sha256": digest.hex() if digest is not None else None,
                    "bytes": size,
                    "readings": count,
                    "first_ns": first_ns,
                    "last_ns": last_ns,
                },
                "sealed_ns": sealed_ns,
                "received_ns": received_ns,
                "stored_ns": stored_ns,
                **_source(view, epoch, key),
            }
        )
    return found


def _source(view: Snapshot, epoch: int | None, key: int) -> dict[str, Any]:
    rows = view.rows(
        "SELECT c.body, b.tag, c.received_ns FROM bindings b JOIN catalogs c ON c.epoch = b.epoch"
        " WHERE b.epoch = ? AND b.key = ?",
        [epoch, key],
    )
    if not rows:
        # Stored before blocks kept their epoch: the tag as it is known now.
        [(device, name, source)] = view.rows("SELECT device, name, source FROM tags WHERE key = ?", [key])
        return {"epoch": None, "catalog_sha256": None, "tag": None, "device": device, "name": name,
                "source": orjson.loads(source)}  # fmt: skip
    body, tag, _ = rows[0]
    entry: dict[str, Any] = next((each for each in orjson.loads(body)["tags"] if each.get("tag") == tag), {})
    return {
        "epoch": f"{epoch:016x}",
        "catalog_sha256": hashlib.sha256(body).hexdigest(),
        "tag": tag,
        "device": entry.get("device"),
        "name": entry.get("name"),
        "source": entry.get("source") or {},
    }
