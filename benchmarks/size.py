"""Bytes per reading of blocks, against the same readings as JSON rows and as JSON rows in a zstd frame.

A JSON row is `{"id","time","value","quality"}` with the tag's identifier. Every figure is the mean over up to eight
blocks of the signals, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import zstandard

from agent._native import Buffer
from agent.model import Reading
from benchmarks import signals
from benchmarks.result import Result, less
from benchmarks.signals import Signals

BLOCKS = 8
STREAM = bytes(range(16))


def results() -> Iterator[Result]:
    for source in [signals.simulated(), *signals.real()]:
        for scans in signals.SCANS:
            if scans <= len(source.rows):
                yield from _measure(source, scans, own=False)
                yield from _measure(source, scans, own=True)


def _measure(source: Signals, scans: int, *, own: bool) -> list[Result]:
    buffer, compressor = Buffer(source.tags), zstandard.ZstdCompressor(3)
    readings = block = plain = packed = 0
    for turn in range(min(BLOCKS, len(source.rows) // scans)):
        rows = (source.own if own else source.shared)(scans, turn * scans)
        buffer.push(rows)
        sealed = buffer.seal(stream=STREAM, sequence=turn, epoch=2**63, sealed_ns=rows[-1].time_ns + 5_000_000)
        assert sealed is not None
        text = json_rows(source, rows)
        readings, block = readings + len(rows), block + len(sealed)
        plain, packed = plain + len(text), packed + len(compressor.compress(text))
    name = f"block of {source.name}, {scans} scans, {'own 1 ms times' if own else 'shared times'}"
    return less(name, block / readings, "bytes/reading",
                **{"JSON rows": plain / readings, "JSON rows + zstd-3": packed / readings})  # fmt: skip


def json_rows(source: Signals, rows: list[Reading]) -> bytes:
    """The usual telemetry message: an object a reading."""
    return orjson.dumps([
        {"id": source.tags[tag].identifier, "time": time_ns, "value": value, "quality": quality}
        for tag, time_ns, value, quality in rows
    ])  # fmt: skip
