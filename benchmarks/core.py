"""What the Rust core does by itself, without Python: `native/benches/throughput.rs`, built and run by cargo."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.result import Result

ROOT = Path(__file__).parents[1]
COMMAND = ("cargo", "bench", "--quiet", "--locked", "--bench", "throughput")


def results() -> Iterator[Result]:
    """As they come. Raises OSError where there is no cargo, and CalledProcessError where the bench fails."""
    with subprocess.Popen(COMMAND, cwd=ROOT, stdout=subprocess.PIPE) as bench:
        assert bench.stdout is not None
        for line in bench.stdout:
            yield Result(**orjson.loads(line))
    if bench.returncode:
        raise subprocess.CalledProcessError(bench.returncode, COMMAND)
