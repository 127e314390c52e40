"""Durations, sizes, numbers and names as people write them in a config.

Every ValueError of this file reads "what is wrong; write what to write instead".
"""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from collections.abc import Callable

_QUANTITY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
"""A comma that may part thousands, or a fraction."""
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:(,)[0-9]{3})+(?:\.[0-9]+)?|[+-]?[0-9]{1,3}(?:(\.)[0-9]{3})+(?:,[0-9]+)?")
"""Thousands parted by commas or by points, with a fraction behind the other one."""
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4}
_BYTES |= {"kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4}
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def seconds(value: object) -> float:
    """Seconds of `"500ms"`, `"1s"`, `"2m"`, `"1h"`, `"1d"`, or of a plain number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        found = _finite(value)
    else:
        unit = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
        if not unit or unit[2] not in _SECONDS:
            wanted = f'"{unit[1]}ms" or "{unit[1]}s"' if unit and not unit[2] else '"500ms", "1s" or "2m"'
            raise ValueError(f"{shown(value)} is not a duration; write {wanted}")
        found = float(unit[1]) * _SECONDS[unit[2]]
    if not found > 0:
        raise ValueError(f'{shown(value)} is not a duration above zero; write "500ms", "1s" or "2m"')
    return found


def byte_count(value: object) -> int:
    """Bytes of `"64 KiB"`, `"2 GiB"`, `"10 MB"`, or of a plain whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        found = value
    else:
        unit = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
        if not unit or unit[2].lower() not in _BYTES:
            raise ValueError(f'{shown(value)} is not a size; write "64 KiB", "10 MB", "2 GiB" or a number of bytes')
        found = round(float(unit[1]) * _BYTES[unit[2].lower()])
    if found <= 0:
        raise ValueError(f'{shown(value)} is not a size above zero; write "64 KiB", "10 MB" or "2 GiB"')
    return found


def duration_within(least: str, most: str) -> Callable[[float], float]:
    """A check that a duration lies from `least` to `most`, both written as a person would."""

    def check(value: float) -> float:
        if not seconds(least) <= value <= seconds(most):
            raise ValueError(f'{value:g} s is out of range; write a duration from "{least}" to "{most}"')
        return value

    return check


def size_within(least: str, most: str) -> Callable[[int], int]:
    """A check that a size lies from `least` to `most`, both written as a person would."""

    def check(value: int) -> int:
        if not byte_count(least) <= value <= byte_count(most):
            raise ValueError(f'{shown(value)} bytes are out of range; write a size from "{least}" to "{most}"')
        return value

    return check


def number(text: str) -> float:
    """A finite decimal number, with a point."""
    if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    if _THOUSANDS.fullmatch(text):
        raise ValueError(f"{shown(text)} is not a number; write {text.replace(',', '')}, or {text.replace(',', '.')}")
    grouped = _GROUPED.fullmatch(text)
    pointed = text.replace((grouped[1] or grouped[2]) if grouped else "", "").replace(",", ".", 1)
    if _NUMBER.fullmatch(pointed) and pointed != text:
        wanted = pointed if grouped else f"{pointed}, with a point"
    elif text.endswith("%") and _NUMBER.fullmatch(text[:-1]):
        wanted = f"{float(text[:-1]) / 100:g}"
    else:
        wanted = "one such as 0.1 or -40"
    raise ValueError(f"{shown(text)} is not a number; write {wanted}")


def name(text: str) -> str:
    """A name of an agent, device or tag. Its letters exclude what MQTT topics and identifiers give a meaning to."""
    if _NAME.fullmatch(text) or (0 < len(text) <= 64 and all(map(_letter, text))):
        return text
    if not text:
        wrong = "a name can't be empty"
    elif len(text) > 64:
        wrong = f"a name of {len(text)} characters"
    else:
        odd = next(letter for letter in text if not _letter(letter))
        wrong = f"{shown(text)} has the character {odd!r}, which a name can't have"
    raise ValueError(f"{wrong}; write 1 to 64 letters, digits, '-', '_' or '.'")


def printable(text: str, most: int = 255) -> str:
    """One line of at most `most` characters."""
    if len(text) > most:
        raise ValueError(f"a text of {len(text)} characters; write at most {most}")
    if not text.isprintable():
        raise ValueError(f"{shown(text)} has line breaks or control characters; write one plain line")
    return text


def on_this_machine(authority: str) -> bool:
    """Whether `host:port` is reached from this machine only."""
    host = authority.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown(value: object, most: int = 60) -> str:
    """A value as a message shows it: short."""
    text = repr(value[: most + 1]) if isinstance(value, str) else repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."


def _letter(letter: str) -> bool:
    return letter in "-_." or unicodedata.category(letter)[0] in "LNM"  # M: vowel signs of Indic and Thai scripts


def _finite(value: float) -> float:
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f'{shown(value)} is not a duration; write "500ms", "1s" or "2m"')
    return found
