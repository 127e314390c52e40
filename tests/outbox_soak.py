"""The outbox's rigs at length: `python -m tests.outbox_soak WHAT COUNT --seed SEED`. One line says what was done, how
often, from which seed, and the 95 % upper bound of the chance of a failure (the rule of three)."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.outbox_disks import full_disks, power_cuts
from tests.outbox_failing import fail_each_apart
from tests.outbox_harms import harms
from tests.outbox_writer import kills


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("what", choices=["kills", "ext4", "xfs", "full", "harms", "each"])
    asked.add_argument("count", type=int)
    asked.add_argument("--seed", type=int, default=0, help="0: a new one")
    asked.add_argument("--first", type=int, default=0, help="of the trials of `harms`: where to begin")
    options = asked.parse_args()
    logging.getLogger("headrace").setLevel(logging.CRITICAL)  # what is done to the disk is no news here
    seed = options.seed or random.SystemRandom().randrange(1, 1 << 32)
    print(f"{options.what}: seed {seed}", file=sys.stderr, flush=True)
    chance, began = random.Random(seed), time.monotonic()
    extra: object = ""
    failures = 0
    # Where inode numbers do not last, so that a copy is not taken for one that was put back.
    folder = "/dev/shm" if options.what in ("harms", "each") else None
    with tempfile.TemporaryDirectory(prefix="headrace-soak-", dir=folder) as name:
        home = Path(name)
        match options.what:
            case "kills":
                asyncio.run(kills(home / "outbox.db", options.count, chance))
            case "full":
                subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", home], check=True)
                try:
                    asyncio.run(full_disks(home, options.count, chance))
                finally:
                    subprocess.run(["umount", "-l", home], check=True)
            case "harms":
                seen = asyncio.run(harms(home, seed, options.count, options.first))
                extra, failures = seen, len(seen.wrong)
            case "each":
                print(fail_each_apart(home, options.count), end="")
                return 0
            case kind:
                extra = dict(asyncio.run(power_cuts(home, kind, options.count, chance)))
    bound = f"95 % bound {300 / options.count:.2g} %" if not failures else "NOT 0"
    print(f"{options.what}: {options.count} times, seed {seed}, {failures} failures ({bound}), "
          f"{time.monotonic() - began:.0f} s {extra}")  # fmt: skip
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
