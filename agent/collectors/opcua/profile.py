"""What a server can take, and what to ask of it. Pure: it knows numbers, and no connection."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from agent.config import OpcUaDevice
from agent.model import Tag, ValueType

CHUNK = 1000
"""Nodes or items a call where the server states no limit of its own."""
ITEMS = 250
"""Monitored items a call: to encode one more takes asyncua 0.1 ms, in which nothing else goes on."""
S7_CHUNK = 200
"""An S7-1200 or S7-1500 states more, and takes some 50 times as long for each item past this (measured by others)."""
MOST_QUEUED = 10_000
"""Values that a server is asked to queue for one item, however short the sampling interval."""
EVERY_CHANGE = 0.05
"""Seconds from one change to the next that a queue is made for where every change is asked for."""
_NO_DEADBAND = (ValueType.BOOL, ValueType.STRING)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most nodes or items for one call of each service."""

    items: int = ITEMS
    read: int = CHUNK
    register: int = CHUNK
    translate: int = CHUNK

    @classmethod
    def stated(cls, product: str, items: object, read: object, register: object, translate: object) -> Limits:
        """From the server's OperationLimits, each None or 0 where it states none, and its product's name."""
        most = S7_CHUNK if re.search(r"\bS7[- ]?1[25]\d\d|SIMATIC", product, re.IGNORECASE) else CHUNK
        bounds = ((items, min(most, ITEMS)), (read, most), (register, most), (translate, most))
        return cls(*(min(bound, each) if isinstance(each, int) and each > 0 else bound for each, bound in bounds))


def queue_size(outage: float, sampling: float) -> int:
    """Values to queue for each item, so that a break of `outage` seconds loses none (one more is the newest)."""
    return min(MOST_QUEUED, math.ceil(outage / (max(sampling, 0.001) if sampling else EVERY_CHANGE)) + 1)


Range = tuple[float, float]
"""Low and high."""


@dataclass(frozen=True, slots=True)
class Deadband:
    """What a server is asked to leave out: changes up to `size`, in the device's units or in percent of its EURange."""

    size: float
    percent: bool = False


def share(tag: Tag) -> float:
    """The percentage of its range that a tag's deadband is; 0 where it is no percentage."""
    rule = tag.filter.partition(";")[0].strip()
    return float(rule.removeprefix("deadband=")[:-1]) if rule.startswith("deadband=") and rule.endswith("%") else 0.0


def own_range(tag: Tag) -> Range | None:
    """The range that the tag list gives it, in the unit of its readings."""
    return None if tag.low is None or tag.high is None else (tag.low, tag.high)


def of_readings(tag: Tag, stated: Range) -> Range:
    """The server's range in the unit of the tag's readings."""
    ends = [end * (1.0 if tag.scale is None else tag.scale) + (tag.offset or 0.0) for end in stated]
    return min(ends), max(ends)


def deadband(device: OpcUaDevice, tag: Tag, stated: Range | None = None) -> Deadband | None:
    """What a server may leave out for a tag; None where only our filter may. `stated` is the EURange of its node.

    Ours is the same rule (docs/filters.md). It stays where a heartbeat has to come also without a change. A percentage
    is the server's (OPC 10000-8, 6.2) where its range is the tag's; where the tag list gives the tag another range, it
    is an absolute deadband of that one, so that no reading which the list asks for is left out.
    """
    rule, _, heartbeat = tag.filter.partition(";")
    word, _, bound = rule.strip().partition("=")
    if device.deadband != "server" or word != "deadband" or heartbeat or tag.type in _NO_DEADBAND:
        return None
    if not (percent := share(tag)):
        return Deadband(float(bound) / abs(tag.scale or 1.0))
    own = own_range(tag)
    if stated is not None and own in (None, of_readings(tag, stated)):
        return Deadband(percent, percent=True)
    return own and Deadband(percent / 100 * (own[1] - own[0]) / abs(tag.scale or 1.0))
