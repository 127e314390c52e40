"""Compares what a data center stored with what the simulated plant showed."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from agent.config import Config
from agent.model import Scalar, Tag, Value, ValueType
from headrace.query import NoAnswer, fetch
from simulators.oracle import Oracle
from simulators.plant import Plant

PAGE = 200_000
UNKNOWN = 404


@dataclass(slots=True)
class Verdict:
    """What the comparison found. `lost` counts changes that the plant showed and the store does not have."""

    stored: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    gaps: int = 0
    examples: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def verify(config: Config, seed: int, url: str) -> Verdict:
    """Every stored reading of every tag of `config`, against `value(tag, time)` of the plant with this seed."""
    oracle = Oracle(Plant(config.tags, seed), config)
    found = Verdict()
    gaps: set[tuple[int, int, str]] = set()
    for tag in config.tags:
        times: Counter[tuple[int, Any, int]] = Counter()
        for answer in _pages(url, tag.identifier):
            gaps.update((gap["from_ns"], gap["to_ns"], gap["reason"]) for gap in answer["gaps"])
            for time_ns, written, quality in answer["readings"]:
                value = as_plant(written, tag.type)
                times[(time_ns, value, quality)] += 1
                if oracle.wrong(tag, time_ns, value, quality):
                    found.wrong += 1
                    _example(found, tag, f"is {value!r} at {time_ns}, and never was around then")
        found.stored += times.total()
        found.duplicates += times.total() - len(times)
        _owed(found, oracle, tag, {time_ns for time_ns, value, _ in times if value is not None})
    found.gaps = len(gaps)
    return found


def as_plant(written: Any, kind: ValueType) -> Value:
    """A value as the plant has it: JSON has lists, and base64 in place of bytes."""
    if isinstance(written, list):
        return tuple(cast("Scalar", as_plant(each, kind.element)) for each in written)
    if kind is ValueType.BYTES and isinstance(written, str):
        return base64.b64decode(written)
    return cast("Value", written)


def _owed(found: Verdict, oracle: Oracle, tag: Tag, times: set[int]) -> None:
    if not times:
        found.lost += 1
        _example(found, tag, "has no reading")
        return
    missing = [time_ns for time_ns in oracle.expected_changes(tag, min(times), max(times)) if time_ns not in times]
    found.lost += len(missing)
    if missing:
        _example(found, tag, f"changed {len(missing)} times unseen, first at {missing[0]}")


def _example(found: Verdict, tag: Tag, what: str) -> None:
    if len(found.examples) < 10:
        found.examples.append(f"{tag.device}.{tag.name} ({tag.address}) {what}")


def _pages(url: str, identifier: str) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        try:
            answer: dict[str, Any] = json.loads(fetch(url, "/v1/readings", id=identifier, limit=PAGE, after=after))
        except NoAnswer as reason:
            if reason.status == UNKNOWN:
                return
            raise
        yield answer
        after = answer.get("next")
        if after is None:
            return
