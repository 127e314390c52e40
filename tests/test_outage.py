"""An outage of days, compressed in time: it fits into what `headrace plan` says, the past drains ten times as fast as
it came, and the present does not wait.

CI takes a small part of 72 hours; `make soak-outage` all of it (docs/reliability.md).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config import load
from benchmarks.drain import drain
from benchmarks.walk import RATE, TAGS
from headrace.plan import plan

OUTAGE = int(os.environ.get("HEADRACE_OUTAGE", "2400"))
"""Seconds."""

CONFIG = """
[agent]
id = "drain"
data_dir = "var"
[identifiers]
prefix = "88.1"
[seal]
after = "1s"
bytes = "64 KiB"
[outbox]
max_bytes = "{quota}"
[uplink]
[[device]]
name = "press"
protocol = "modbus"
url = "tcp://127.0.0.1:5020"
poll = "50ms"
tags = "press.csv"
"""


def quota(home: Path, seconds: int) -> int:
    """`outbox.max_bytes` of which `headrace plan` says that it covers so many seconds of this plant."""
    rows = [f"{tag.name},{tag.address},float32" for tag in TAGS]
    (home / "press.csv").write_text("\n".join(["name,address,type", *rows]) + "\n", encoding="utf-8")
    (home / "plant.toml").write_text(CONFIG.format(quota="2 GiB"), encoding="utf-8")
    found = plan(load(home / "plant.toml"))
    assert found.readings_per_second == RATE
    return int(found.bytes_per_day * seconds / 86400) + 1


@pytest.mark.timeout(300 + OUTAGE)
async def test_an_outage_drains_ten_times_as_fast_as_it_came_while_live_blocks_do_not_wait(tmp_path: Path) -> None:
    # What holds the log and the reserve is the same for an hour as for days: it is left out of an hour's account.
    planned = quota(tmp_path, max(OUTAGE, 24 * 3600))
    found = await drain(tmp_path, OUTAGE, quota=planned, say=lambda text: print(text, flush=True))
    late = sorted(found.late)
    print(
        f"{OUTAGE} s: {found.stored} readings stored, {found.dropped} dropped, {found.holes} holes, {found.uneven}"
        f" blocks uneven, sums {'as' if found.alike else 'NOT as'} the plant's;"
        f" outbox {found.disk_bytes} of {planned} bytes;"
        f" {found.readings_per_second:.0f} readings/s; live blocks: half within {late[len(late) // 2]:.2f} s,"
        f" 99 % within {late[len(late) * 99 // 100]:.2f} s, all {len(late)} within {late[-1]:.2f} s"
    )
    assert found.dropped == 0, f"the quota that was planned, {planned} bytes, did not hold {OUTAGE} s"
    assert (found.holes, found.uneven, found.alike) == (0, 0, True)
    assert found.stored == (OUTAGE + len(late)) * RATE
    assert found.disk_bytes <= planned
    assert found.readings_per_second > 10 * RATE
    # Whoever waited for the past would wait for most of the drain; a busy machine holds up one or the other.
    assert late[len(late) * 3 // 4] < 2.0
    assert late[-1] < 30.0
