"""The figures of one run as Markdown, and their place in docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from pathlib import Path

import agent._native
from benchmarks import signals, sizes
from benchmarks.result import Result
from benchmarks.sizes import Size

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN = "<!-- begin: written by `python -m benchmarks --write-docs` -->"
END = "<!-- end -->"


def tables(found: list[Size], speeds: list[Result]) -> str:
    """Sizes, where we lose, the targets and the speeds."""
    absent = [name for name, load in signals.SETS.items() if load() is None]
    parts = [
        _place(),
        "### Bytes per reading",
        sizes.table(found),
        losses(found),
        targets(found),
        "### Speed",
        speed_table(speeds),
    ]
    if absent:
        parts.insert(1, f"Not on this machine, and left out: {', '.join(absent)}.")
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _place() -> str:
    machine, python = platform.machine(), platform.python_version()
    return f"Measured on {machine} with {os.cpu_count()} cores, Python {python}, headrace {agent._native.__version__}."


def losses(found: Iterable[Size]) -> str:
    """Where a rival is smaller than the block."""
    lines = []
    for size in found:
        block, *others = size.each().items()
        smaller = [f"{name} {value:.2f}" for name, value in others if value < block[1]]
        if smaller:
            lines.append(f"- {size.name} ({block[1]:.2f}): {', '.join(smaller)}")
    return "Smaller than our block:\n\n" + "\n".join(lines) if lines else "Nothing here is smaller than our block."


def targets(found: Iterable[Size]) -> str:
    """What Tennessee Eastman may cost, where it was measured."""
    eastman = signals.eastman()
    lines = ["| Tennessee Eastman, float64 | bytes/reading | at most | |", "| --- | ---: | ---: | --- |"]
    for size in found:
        if eastman is not None and size.source == eastman.name:
            most, each = sizes.TARGETS[size.times][sizes.SCANS.index(size.scans)], size.each()["block"]
            told = "held" if each <= most else "missed"
            lines.append(f"| {size.times} times, {size.scans} scans | {each:.3f} | {most} | {told} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def speed_table(speeds: Iterable[Result]) -> str:
    """A row a measurement, with its ratio to every baseline."""
    rows: dict[str, list[Result]] = {}
    for each in speeds:
        rows.setdefault(each.name, []).append(each)
    lines = ["| what | value | times as good as |", "| --- | ---: | --- |"]
    for name, group in rows.items():
        first = group[0]
        value = f"{first.value / 1e6:.1f} million {first.unit}" if first.value >= 1e5 else f"{first.value} {first.unit}"
        ratios = ", ".join(f"{each.baseline}: {each.ratio}" for each in group)
        lines.append(f"| {name} | {value} | {ratios} |")
    return "\n".join(lines)


def write(text: str, page: Path = PAGE) -> None:
    """Replaces what stands between the two marks of the page. Raises ValueError where they are missing."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} lacks the marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
