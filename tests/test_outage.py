"""An outage of days, compressed in time: the past drains ten times as fast as it came, and the present does not wait.

CI takes a small part of 72 hours; `HEADRACE_OUTAGE=259200 pytest tests/test_outage.py` all of it (docs/delivery.md).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.drain import RATE, drain

OUTAGE = int(os.environ.get("HEADRACE_OUTAGE", "2400"))
"""Seconds."""


@pytest.mark.timeout(120 + OUTAGE)
async def test_an_outage_drains_ten_times_as_fast_as_it_came_while_live_blocks_do_not_wait(tmp_path: Path) -> None:
    found = await drain(tmp_path, OUTAGE)
    print(found.readings_per_second, found)
    assert found.readings_per_second > 10 * RATE
    assert max(found.late) < 2.0
    assert (found.holes, found.dropped) == (0, 0)
    assert found.stored == (OUTAGE + len(found.late)) * RATE
