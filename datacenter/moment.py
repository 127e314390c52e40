"""Moments: from text to ns UTC since 1970."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

LOWEST, HIGHEST = -(2**63), 2**63 - 1

_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
# A space instead of the plus: what is left of "+02:00" in a URL that was not encoded.
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|([+\- ])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHAPE = "write RFC 3339 with an offset (2026-05-01T06:00:00Z), a date (2026-05-01), or ns since 1970"


def parse(text: str) -> int:
    """RFC 3339 with an offset, a date (its first moment in UTC), or ns. Raises ValueError with what to write."""
    if re.fullmatch(r"-?[0-9]{1,19}", text):
        ns = int(text)
    elif _DATE.fullmatch(text):
        ns = _whole(text, "00:00:00")
    elif found := _RFC3339.fullmatch(text):
        day, clock, fraction, zone, sign, hours, minutes = found.groups()
        ns = _whole(day, clock) + int((fraction or "0").ljust(9, "0"))
        if zone not in "Zz":
            ahead = (int(hours) * 60 + int(minutes)) * 60 * 10**9
            ns += ahead if sign == "-" else -ahead
    else:
        raise ValueError(f"{text!r} is not a time; {_SHAPE}")
    if not LOWEST <= ns <= HIGHEST:
        raise ValueError(f"{text!r} is out of range: the years 1678 to 2261 can be asked for")
    return ns


def _whole(day: str, clock: str) -> int:
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}+00:00")
    except ValueError as reason:
        raise ValueError(f"'{day}T{clock}' is not a time: {reason}") from None
    return (moment - _EPOCH) // timedelta(seconds=1) * 10**9


def spelled(ns: int) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return (_EPOCH + timedelta(seconds=ns // 10**9)).strftime("%Y-%m-%dT%H:%M:%SZ")
