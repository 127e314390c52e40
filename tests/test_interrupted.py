"""What is under way when somebody stops waiting for it: it is finished, or told, and never half done."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.outbox import Outbox
from tests.test_outbox import MEBIBYTE, block, everything, opened


async def test_an_append_whose_caller_is_gone_is_stored_before_the_file_closes(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for steps in range(12):
        outbox = await Outbox.open(path, max_bytes=64 * MEBIBYTE, when_full="drop_oldest")
        await outbox.flush()
        wanted = outbox.next_sequence
        appending = asyncio.create_task(outbox.append(block(outbox), 7))
        for _ in range(steps + 1):
            await asyncio.sleep(0)
        appending.cancel()
        await outbox.close()
        async with opened(path) as again:
            assert again.last == wanted
            assert (await everything(again))[-1].sequence == wanted
