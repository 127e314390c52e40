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


def deadband(device: OpcUaDevice, tag: Tag) -> float:
    """The absolute deadband, in the device's units, that a server may apply for a tag; 0 for none.

    Ours is the same rule (docs/filters.md). It stays where a heartbeat has to come also without a change. A percentage
    is of the tag's own range, not of the server's EURange, which may be another.
    """
    rule, _, heartbeat = tag.filter.partition(";")
    word, _, bound = rule.strip().partition("=")
    if device.deadband != "server" or word != "deadband" or heartbeat or tag.type in _NO_DEADBAND:
        return 0.0
    if bound.endswith("%"):
        if tag.low is None or tag.high is None:
            return 0.0
        size = float(bound[:-1]) / 100 * (tag.high - tag.low)
    else:
        size = float(bound)
    return size / abs(tag.scale or 1.0)
