"""`headrace verify`: compares what a data center stored with what the virtual plant had, reading by reading.

Per device it counts what is **lost** (a change that the plant showed, and that is neither stored nor told to be
missing), **doubled**, **wrong** (not what the plant showed then), **late** (a poll that came more than one poll too
late) and **named** (a change that a gap record, a bad reading or the simulator's record of its faults says is missing).
"""

from __future__ import annotations

import argparse
import base64
import json
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeAlias, cast

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
Answer: TypeAlias = dict[str, Any]
"""Of `/v1/readings`."""
Pages: TypeAlias = Callable[..., Iterable[Answer]]
"""Of a tag, and from a time on where one is given."""


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

    def pages(tag: Tag, from_ns: int | None = None) -> Iterator[Answer]:
        return _pages(url, tag.identifier, {**(span or {}), **({} if from_ns is None else {"from": from_ns})})

    found = judge(config, oracle, pages)
    found.awaited = awaited(json.loads(fetch(url, "/v1/streams")), config.agent.id)
    return found


def awaited(streams: Sequence[dict[str, Any]], agent: str) -> int:
    """Blocks that an agent's streams lack, of which later ones are stored. A data center may have other agents' too."""
    mine = [stream for stream in streams if stream["agent"] == agent]
    return sum(last - first + 1 for stream in mine for first, last in stream["holes"])


def judge(config: Config, oracle: Oracle, pages: Pages) -> Verdict:
    """What `pages` have of each tag, by what `oracle` knows."""
    found = Verdict(devices={device.name: Account() for device in config.devices})
    gaps: set[tuple[int, int, str]] = set()
    for device in config.devices:
        seen = [_tag(found, oracle, tag, gaps, pages(tag)) for tag in device.tags]
        last_ns = max((each.last_ns for each in seen if each.last_ns is not None), default=None)
        for each in seen:
            _silent(found, oracle, each, last_ns, pages)
    found.gaps = len(gaps)
    for name in _COUNTS:
        setattr(found, name, sum(getattr(each, name) for each in found.devices.values()))
    return found


@dataclass(slots=True)
class _Seen:
    """What is to be known of a tag once those of its device are known."""

    tag: Tag
    first_ns: int | None
    last_ns: int | None
    """Of the plant's times of its readings with a value; None where it has none."""
    told: list[tuple[int, int]]


def _tag(found: Verdict, oracle: Oracle, tag: Tag, gaps: set[tuple[int, int, str]], pages: Iterable[Answer]) -> _Seen:
    account = found.devices[tag.device]
    account.tags += 1
    readings: Counter[tuple[int, Any, int]] = Counter()
    mine: set[tuple[int, int, str]] = set()
    stored: set[int] = set()
    likely: list[int] = []
    for answer in pages:
        now_ns = time.time_ns()
        mine.update((gap["from_ns"], gap["to_ns"], gap["reason"]) for gap in answer["gaps"])
        for time_ns, written, quality in answer["readings"]:
            value = as_plant(written, tag.type)
            readings[time_ns, value, quality] += 1
            moments = [] if value is None else oracle.moments(tag, time_ns, value) or [time_ns]
            if oracle.wrong(tag, time_ns, value, quality) or min(moments, default=0) > now_ns:
                account.wrong += 1
                _example(found, tag, f"is {value!r} at {time_ns}, and never was around then")
            stored.update(moments)
            likely += moments[:1]
    gaps |= mine
    account.stored += readings.total()
    account.duplicates += _doubled(oracle, tag, readings)
    told = [(from_ns, to_ns) for from_ns, to_ns, _ in mine] + _bad(readings) + list(oracle.hidden(tag))
    if not likely:
        return _Seen(tag, None, None, told)
    first_ns, last_ns = min(likely), max(likely)
    missing = [each for each in oracle.expected_changes(tag, first_ns, last_ns) if each not in stored]
    _missing(found, tag, missing, told, "changed {count} times unseen, first at {first}")
    account.late += oracle.late(tag, sorted(time_ns for time_ns, _, _ in readings), told)
    return _Seen(tag, first_ns, last_ns, told)


def _missing(found: Verdict, tag: Tag, missing: Sequence[int], told: Sequence[tuple[int, int]], what: str) -> None:
    account = found.devices[tag.device]
    lost = [each for each in missing if not any(from_ns <= each <= to_ns for from_ns, to_ns in told)]
    account.named += len(missing) - len(lost)
    account.lost += len(lost)
    if lost:
        _example(found, tag, what.format(count=len(lost), first=lost[0]))


def _silent(found: Verdict, oracle: Oracle, seen: _Seen, last_ns: int | None, pages: Pages) -> None:
    """A tag that has no reading, or none any more although its device goes on."""
    account, tag = found.devices[seen.tag.device], seen.tag
    if seen.first_ns is None or seen.last_ns is None:
        account.lost += not seen.told
        account.named += bool(seen.told)
        if not seen.told:
            _example(found, tag, "has no reading")
        return
    end_ns = (last_ns or 0) - oracle.patience_ns(tag)
    missing = oracle.expected_changes(tag, seen.last_ns, end_ns)
    silent = oracle.silent(tag, seen.last_ns, end_ns)
    if not missing and not silent:
        return
    # Unless they came while the other tags were looked at
    more = [each for answer in pages(tag, seen.last_ns + 1) for each in answer["readings"]]
    come = {each for at, value, _ in more for each in oracle.moments(tag, at, as_plant(value, tag.type))}
    left = [each for each in missing if each not in come]
    _missing(found, tag, left, seen.told, "changed {count} times after its last reading, first at {first}")
    if silent and all(value is None for _, value, _ in more):
        _missing(found, tag, [end_ns], seen.told, f"was not read after {seen.last_ns}, although others were")


def _doubled(oracle: Oracle, tag: Tag, readings: Counter[tuple[int, Any, int]]) -> int:
    """A tag has one value at a time, whatever it is, unless the device's clock showed that time more than once."""
    copies: Counter[int] = Counter()
    for (time_ns, value, _), count in readings.items():
        copies[time_ns] += count if value is not None else 0
    found = sum(count - 1 for (_, value, _), count in readings.items() if value is None)
    again: dict[int, set[int]] = {time_ns: set() for time_ns, count in copies.items() if count > 1}
    for time_ns, value, _ in readings if again else ():
        if value is not None and time_ns in again:
            again[time_ns].update(oracle.moments(tag, time_ns, value))
    return found + sum(copies[time_ns] - max(1, len(moments)) for time_ns, moments in again.items())


def _bad(readings: Counter[tuple[int, Any, int]]) -> list[tuple[int, int]]:
    """From each reading without a value to the next one with a value; for ever, where none came."""
    good = sorted(time_ns for time_ns, value, _ in readings if value is not None)
    found = []
    for time_ns, value, _ in readings:
        if value is None:
            at = bisect_right(good, time_ns)
            found.append((time_ns, good[at] if at < len(good) else 2**63 - 1))
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


def _pages(url: str, identifier: str, span: Mapping[str, object]) -> Iterator[Answer]:
    after = None
    while True:
        try:
            body = fetch(url, "/v1/readings", id=identifier, limit=PAGE, after=after, **span)
            answer: Answer = json.loads(body)
        except NoAnswer as reason:
            if reason.status == UNKNOWN:
                return
            raise
        yield answer
        after = answer.get("next")
        if after is None:
            return
