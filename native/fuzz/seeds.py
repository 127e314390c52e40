"""Writes the seed corpus of the fuzz targets anew: `make fuzz-seeds`.

Blocks are those of tests/native_vectors.json, and the compressed ones also with their soft parts unpacked, so that a
change of one byte reaches the codecs. OPC UA bodies are those of tests/opcua_vectors.json, and the values in them by
themselves. The seeds of the other targets are random bytes from a fixed seed.
"""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

import zstandard

from agent._native import crc32c, decode

ROOT = Path(__file__).resolve().parents[2]
SEEDS = Path(__file__).parent / "corpus-seed"
FIXED = 39
"""Bytes of a header before its varints (docs/block-format.md)."""
VARINTS = 9
"""Of a compressed block. The last two are the bytes of the soft part as stored and before compression."""
ZSTD = 1
DATA_CHANGE = bytes.fromhex("01002b0301")
"""The wrapping of a DataChangeNotification, up to its length."""


def unpacked(block: bytes) -> bytes | None:
    """The same block with its soft part not compressed; None where it is not."""
    if not block[6] & ZSTD:
        return None
    at, varints = FIXED, []
    for _ in range(VARINTS):
        end = next(place for place in range(at, len(block)) if block[place] < 0x80) + 1
        varints.append(block[at:end])
        at = end
    stored = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varints[-2]))
    soft, hard = zstandard.ZstdDecompressor().decompress(block[at : at + stored]), block[at + stored : -4]
    head = block[:6] + bytes([block[6] & ~ZSTD]) + block[7:FIXED]
    content = head + b"".join([*varints[:-2], varints[-1]]) + soft + hard
    plain = content + crc32c(content).to_bytes(4, "little")
    if repr(decode(plain).rows()) != repr(decode(block).rows()):
        raise SystemExit("the header's layout has changed: mend `unpacked` in native/fuzz/seeds.py")
    return plain


def opcua() -> None:
    """Bodies for `opcua_publish`, and their values: the first byte says which."""
    folder = fresh("opcua_publish")
    for name, _, body, _ in json.loads((ROOT / "tests" / "opcua_vectors.json").read_text()):
        raw, file = bytes.fromhex(body), re.sub(r"\W+", "-", name)
        (folder / file).write_bytes(b"\0" + raw)
        wrapping = raw.index(DATA_CHANGE) + len(DATA_CHANGE)
        size = int.from_bytes(raw[wrapping : wrapping + 4], "little")
        (folder / f"{file}-values").write_bytes(b"\1" + raw[wrapping + 4 : wrapping + size])


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
        name, block = re.sub(r"\W+", "-", vector["name"]), bytes.fromhex(vector["hex"])
        (blocks / name).write_bytes(block)
        if (plain := unpacked(block)) is not None:
            (blocks / f"{name}-unpacked").write_bytes(plain)
    source = random.Random(1)  # noqa: S311
    for target in ("modbus_plan", "filter_push"):
        folder = fresh(target)
        for size in (16, 64, 256, 1024):
            (folder / f"random-{size}").write_bytes(source.randbytes(size))
    opcua()
    print(f"{sum(path.is_file() for path in SEEDS.rglob('*'))} seeds in {SEEDS.relative_to(ROOT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
