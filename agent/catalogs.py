"""The catalogs that an outbox keeps: those of its entries' epochs, and the last few."""

from __future__ import annotations

from agent import _native
from agent.entry import signed, unsigned
from agent.quota import Rows

KEPT = 8


async def newest(rows: Rows) -> int | None:
    """The epoch that was kept last."""
    found = await rows("SELECT epoch FROM catalog ORDER BY kept DESC LIMIT 1")
    return unsigned(found[0][0]) if found else None


async def read(rows: Rows, epoch: int) -> bytes | None:
    """A catalog's body; None where there is none, or where it was damaged."""
    found = await rows("SELECT body, crc FROM catalog WHERE epoch = ?", (signed(epoch),))
    body: bytes | None = found[0][0] if found else None
    return body if type(body) is bytes and _native.crc32c(body) == found[0][1] else None


async def keep(rows: Rows, epoch: int, body: bytes, *, confirmed: int, last: int) -> None:
    """Within a transaction, stores a catalog as the newest, and forgets those that nothing needs any more."""
    key = signed(epoch)
    await rows("UPDATE catalog SET until = ? WHERE until IS NULL AND epoch != ?", (last, key))
    await rows(
        "INSERT OR REPLACE INTO catalog (epoch, kept, until, crc, body) "
        "SELECT ?, coalesce(max(kept), 0) + 1, NULL, ?, ? FROM catalog",
        (key, _native.crc32c(body), body),
    )
    await rows(
        "DELETE FROM catalog WHERE until <= ? AND kept <= (SELECT max(kept) FROM catalog) - ?", (confirmed, KEPT)
    )
