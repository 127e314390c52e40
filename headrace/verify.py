"""`headrace verify`: compares what a data center stored with what the virtual plant had, reading by reading.

Per device it counts what is **lost** (a change that the plant showed, and that is neither stored nor told to be
missing), **doubled**, **wrong** (not what the plant showed then), **late** (a poll that came more than one poll too
late) and **named** (a change that a gap record, a bad reading or the simulator's record of its faults says is missing).
"""

from __future__ import annotations

import argparse
import base64
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from agent import config as configs
from agent.config import Config
from agent.model import Scalar, Tag, Value, ValueType
from headrace.query import NoAnswer, fetch
from simulators.mood import Record
from simulators.oracle import Oracle
from simulators.plant import Plant

PAGE = 200_000
UNKNOWN = 404
MOST_EXAMPLES = 10


@dataclass(slots=True)
class Counts:
    """Of readings. `lost` are changes that the plant showed and the store does not have."""

    stored: int = 0
    lost: int = 0
    duplicates: int = 0
    wrong: int = 0
    late: int = 0
    named: int = 0


_COUNTS = tuple(each.name for each in fields(Counts))


@dataclass(slots=True)
class Account(Counts):
    """Of one device."""

    tags: int = 0


@dataclass(slots=True)
class Verdict(Counts):
    """What the comparison found."""

    gaps: int = 0
    awaited: int = 0
    """Blocks of which later ones are stored already: they have not come yet, or never will."""
    devices: dict[str, Account] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)

    @property
    def fine(self) -> bool:
        """Whether nothing is lost, doubled or wrong. What is named is not lost, and what is late has come."""
        return self.stored > 0 and not (self.lost or self.duplicates or self.wrong or self.awaited)

    def as_dict(self) -> dict[str, Any]:
        """The form that `headrace verify --json` prints."""
        found = asdict(self)
        return {**found, "devices": [{"name": name, **each} for name, each in found["devices"].items()]}


def main(options: argparse.Namespace) -> int:
    """`headrace verify`: 0 where every reading is as the plant had it, 1 where one is lost, doubled or wrong."""
    from headrace.processes import play, show

    config = configs.load(options.config)
    url = options.url or (f"http://{config.datacenter.http}" if config.datacenter else "http://127.0.0.1:8080")
    span = {"from": options.start, "to": options.end}
    found = compare(config, play(config, options), url, span)
    if options.json:
        show(found.as_dict())
    else:
        print(_told(found))
    return 0 if found.fine else 1


def verify(config: Config, seed: int, url: str) -> Verdict:
    """Every stored reading of every tag of `config`, against `value(tag, time)` of the plant with this seed."""
    return compare(config, Plant.of(config, seed), url)


def compare(config: Config, plant: Plant, url: str, span: Mapping[str, object] | None = None) -> Verdict:
    """The same for a plant that is there already; `span` may have `from` and `to`. Raises NoAnswer."""
    oracle = Oracle(plant, config, Record.beside(config.agent.data_dir).spells())
    found = Verdict(devices={device.name: Account() for device in config.devices})
    gaps: set[tuple[int, int, str]] = set()
    for tag in config.tags:
        _tag(found, oracle, tag, gaps, _pages(url, tag.identifier, span or {}))
    found.gaps = len(gaps)
    for name in _COUNTS:
        setattr(found, name, sum(getattr(each, name) for each in found.devices.values()))
    streams = json.loads(fetch(url, "/v1/streams"))
    found.awaited = sum(last - first + 1 for stream in streams for first, last in stream["holes"])
    return found


def _tag(
    found: Verdict, oracle: Oracle, tag: Tag, gaps: set[tuple[int, int, str]], pages: Iterator[dict[str, Any]]
) -> None:
    account = found.devices[tag.device]
    account.tags += 1
    readings: Counter[tuple[int, Any, int]] = Counter()
    mine: set[tuple[int, int, str]] = set()
    stored: set[int] = set()
    for answer in pages:
        mine.update((gap["from_ns"], gap["to_ns"], gap["reason"]) for gap in answer["gaps"])
        for time_ns, written, quality in answer["readings"]:
            value = as_plant(written, tag.type)
            readings[time_ns, value, quality] += 1
            if oracle.wrong(tag, time_ns, value, quality):
                account.wrong += 1
                _example(found, tag, f"is {value!r} at {time_ns}, and never was around then")
            if value is not None:
                at = oracle.stepped(tag, time_ns, value)
                stored.add(time_ns if at is None else at)
    gaps |= mine
    account.stored += readings.total()
    account.duplicates += readings.total() - len(readings)
    told = [(from_ns, to_ns) for from_ns, to_ns, _ in mine] + _bad(readings) + list(oracle.hidden(tag))
    good = sorted(stored)
    if not good:
        account.lost += not told
        account.named += bool(told)
        if not told:
            _example(found, tag, "has no reading")
        return
    missing = [each for each in oracle.expected_changes(tag, good[0], good[-1]) if each not in stored]
    named = [each for each in missing if any(from_ns <= each <= to_ns for from_ns, to_ns in told)]
    account.named += len(named)
    account.lost += len(missing) - len(named)
    if len(missing) > len(named):
        first = min(set(missing) - set(named))
        _example(found, tag, f"changed {len(missing) - len(named)} times unseen, first at {first}")
    account.late += oracle.late(tag, sorted(time_ns for time_ns, _, _ in readings), told)


def _bad(readings: Counter[tuple[int, Any, int]]) -> list[tuple[int, int]]:
    """From each reading without a value to the next one with a value."""
    good = sorted(time_ns for time_ns, value, _ in readings if value is not None)
    found = []
    for time_ns, value, _ in readings:
        if value is None:
            at = bisect_right(good, time_ns)
            found.append((time_ns, good[at] if at < len(good) else time_ns))
    return found


def as_plant(written: Any, kind: ValueType) -> Value:
    """A value as the plant has it: JSON has lists, and base64 in place of bytes."""
    if isinstance(written, list):
        return tuple(cast("Scalar", as_plant(each, kind.element)) for each in written)
    if kind is ValueType.BYTES and isinstance(written, str):
        return base64.b64decode(written)
    return cast("Value", written)


def _told(found: Verdict) -> str:
    lines = [f"{'device':<20}" + "".join(f"{name:>12}" for name in ("tags", *_COUNTS))]
    for name, each in found.devices.items():
        facts = asdict(each)
        lines.append(f"{name:<20}" + "".join(f"{facts[count]:>12,}" for count in ("tags", *_COUNTS)))
    lines += [f"  {example}" for example in found.examples]
    if found.awaited:
        lines.append(f"{found.awaited} blocks have not come, of which later ones have: is the agent still delivering?")
    if not found.stored:
        lines.append("no reading is stored: is the agent running, and is this its data center?")
    sums = ", ".join(f"{name} {getattr(found, name):,}" for name in ("lost", "duplicates", "wrong", "late", "gaps"))
    return "\n".join([*lines, f"{found.stored:,} readings compared with the plant: {sums}"])


def _example(found: Verdict, tag: Tag, what: str) -> None:
    if len(found.examples) < MOST_EXAMPLES:
        found.examples.append(f"{tag.device}.{tag.name} ({tag.address}) {what}")


def _pages(url: str, identifier: str, span: Mapping[str, object]) -> Iterator[dict[str, Any]]:
    after = None
    while True:
        try:
            body = fetch(url, "/v1/readings", id=identifier, limit=PAGE, after=after, **span)
            answer: dict[str, Any] = json.loads(body)
        except NoAnswer as reason:
            if reason.status == UNKNOWN:
                return
            raise
        yield answer
        after = answer.get("next")
        if after is None:
            return
