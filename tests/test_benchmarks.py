"""The benchmarks run anywhere, and print what scripts rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson

ROOT = Path(__file__).parent.parent


def test_every_benchmark_prints_one_json_object_a_line() -> None:
    found = subprocess.run([sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, timeout=60)
    assert (found.returncode, found.stderr) == (0, b"")
    lines = [orjson.loads(line) for line in found.stdout.splitlines()]
    for line in lines:
        assert list(line) == ["name", "value", "unit", "baseline", "ratio", "command"]
        assert line["value"] > 0
        assert line["ratio"] > 0
    assert len({(line["name"], line["baseline"]) for line in lines}) == len(lines)
    plant = [line for line in lines if line["name"].startswith("block of simulated plant")]
    assert len(plant) == 12
    # Bytes are the same on every machine, so they may be held to a bound; speeds may not.
    assert all(line["value"] < 3 for line in plant)
    assert all(line["ratio"] > 30 for line in plant if line["baseline"] == "JSON rows")
