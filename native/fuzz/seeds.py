"""Writes the seed corpus of the fuzz targets anew: `python3 native/fuzz/seeds.py`.

Blocks are those of tests/native_vectors.json, each also with its body unpacked where it is compressed, so that a change
of one byte reaches its codecs. The seeds of the other targets are random bytes from a fixed seed.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEEDS = Path(__file__).parent / "corpus-seed"


def fresh(target: str) -> Path:
    """The empty folder of a target's seeds."""
    folder = SEEDS / target
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    return folder


def main() -> None:
    """Writes every seed."""
    blocks = fresh("blocks")
    for vector in json.loads((ROOT / "tests" / "native_vectors.json").read_text()):
        name = re.sub(r"\W+", "-", vector["name"])
        (blocks / name).write_bytes(bytes.fromhex(vector["hex"]))
    source = random.Random(1)  # noqa: S311
    for target in ("modbus_plan", "filter_push"):
        folder = fresh(target)
        for size in (16, 64, 256, 1024):
            (folder / f"random-{size}").write_bytes(source.randbytes(size))
    print(f"{sum(path.is_file() for path in SEEDS.rglob('*'))} seeds in {SEEDS.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
