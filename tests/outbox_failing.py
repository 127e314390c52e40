"""The n-th write, sync or truncation of an outbox's session fails, for every n (SQLite's method)."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

from agent.errors import OutboxFull
from agent.outbox import MIN_BYTES, OutboxRefused
from tests.outbox_rig import Ledger, block, judge, opened


def shim(home: Path) -> Path:
    """Builds the library that makes a write fail."""
    made = home / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", made, source, "-ldl"], check=True)
    return made


async def session(path: Path, acknowledged: Path, appends: int) -> None:
    """Everything that an outbox does, with a caller that tries again as the agent does."""
    for _ in range(3):
        with contextlib.suppress(OutboxRefused, OSError):
            outbox = await opened(path, max_bytes=MIN_BYTES)
            break
    with acknowledged.open("a") as told:
        for at in range(appends):
            with contextlib.suppress(OutboxFull):
                await outbox.keep_catalog(at // 10, b"catalog %d" % at)
            for _ in range(4):
                one = block(outbox, 900)
                try:
                    await outbox.append(one, 7)
                except OutboxFull:
                    continue
                key = (outbox.stream, outbox.last)
                [kept] = await outbox.peek(outbox.last - 1, 1, 1 << 30)
                print("a", key[1], one.readings, zlib.crc32(kept.body), key[0], file=told, flush=True)
                break
            else:
                raise AssertionError(f"append {at} failed four times")
            if at in (3, 9):
                print("c", at - 2, file=told, flush=True)
                await outbox.confirm(at - 2)
                with contextlib.suppress(OutboxFull):
                    await outbox.flush()
        await outbox.close()


def fail_each_apart(home: Path, appends: int) -> str:
    """Runs `fail_each` in a process whose writes can be made to fail; returns what it said."""
    code = (
        f"from pathlib import Path; from tests import outbox_failing as f; f.fail_each(Path({str(home)!r}), {appends})"
    )
    environment = {**os.environ, "LD_PRELOAD": str(shim(home))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail_each(home: Path, appends: int) -> None:
    """To be run under the shim: the n-th call fails, for every n, until a session passes without a fault."""
    disk = ctypes.CDLL(None)
    disk.failing_disk_calls.restype = ctypes.c_long
    logging.getLogger("headrace").setLevel(logging.CRITICAL)
    for number in (errno.EIO, errno.ENOSPC):
        for at in range(1, 100_000):
            place = Path(tempfile.mkdtemp(dir=home))
            child = os.fork()
            if not child:
                try:
                    disk.failing_disk_arm(ctypes.c_long(at), number)
                    asyncio.run(session(place / "outbox.db", place / "acknowledged", appends))
                    os._exit(0 if disk.failing_disk_calls() >= at else 9)
                except BaseException as reason:
                    print(f"call {at}, {errno.errorcode[number]}: {reason!r}", file=sys.stderr, flush=True)
                    os._exit(1)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert code in (0, 9), f"call {at} failing with {errno.errorcode[number]} ended the session"
            asyncio.run(_after(place))
            shutil.rmtree(place)
            if code == 9:
                print(f"{errno.errorcode[number]}: {at - 1} calls, each failed once", flush=True)
                break


async def _after(place: Path) -> None:
    ledger = Ledger()
    for line in (place / "acknowledged").read_text().splitlines():
        word, *numbers = line.split()
        if word == "c":
            ledger.confirmed = int(numbers[0])
        else:
            key = (bytes.fromhex(numbers[3].replace("-", "")), int(numbers[0]))
            assert key not in ledger.stored, f"place {key[1]} was given out twice"
            ledger.stored[key], ledger.checksums[key] = int(numbers[1]), int(numbers[2])
    outbox = await opened(place / "outbox.db", max_bytes=MIN_BYTES)
    await judge(outbox, ledger, gaps=True)
    await outbox.close()
