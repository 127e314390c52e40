"""A record: what a resolver says of an identifier, in the terms of the Handle System (RFC 3651; its JSON form).

Whatever is read here came from outside. It is bounded before it is looked at, and what does not fit raises ValueError.
"""

from __future__ import annotations

import binascii
import struct
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

MAX_BYTES = 256 * 1024
"""Bytes of an answer: the most of a message of the native protocol."""
MAX_DEPTH = 16
MAX_VALUES = 2048
SHORTEST, LONGEST = 60.0, 172_800.0
"""Seconds for which an answer holds, whatever it says: a node is not asked all the time, and none is believed for ever
(the reference client takes no TTL above two days)."""
DEFAULT_TTL = 86_400
PUBLIC_READ = 0b0010
_PERMISSIONS = 0b1110


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a record. `data` is its bytes, None where they can't be told from the JSON form (a key, a site).

    `ttl` is in seconds; `absolute` says that it is a time since 1970 instead.
    """

    index: int
    type: str
    data: bytes | None
    ttl: int = DEFAULT_TTL
    absolute: bool = False
    permissions: int = _PERMISSIONS
    references: tuple[tuple[str, int], ...] = ()

    @property
    def text(self) -> str | None:
        try:
            return None if self.data is None else self.data.decode()
        except UnicodeDecodeError:
            return None

    def encode(self) -> bytes:
        """The stored form, without index and time stamp: what a digest of HS_SIGNATURE is taken of. ValueError."""
        if self.data is None:
            raise ValueError(f"value {self.index} has a form whose bytes are not known")
        kind = self.type.encode()
        if not -(2**31) <= self.ttl < 2**31:
            raise ValueError(f"value {self.index} holds until after 2038, which its stored form can't say")
        head = struct.pack(">BiB", self.absolute, self.ttl, self.permissions)
        found = [head, _sized(kind), _sized(self.data), struct.pack(">i", len(self.references))]
        found += [_sized(handle.encode()) + struct.pack(">i", index) for handle, index in self.references]
        return b"".join(found)


@dataclass(frozen=True, slots=True)
class Record:
    """What a resolver said of `handle`."""

    handle: str
    values: tuple[Value, ...]

    def first(self, kind: str) -> Value | None:
        """The value of a type with the lowest index; types have no case (RFC 3651, 3.1)."""
        found = [value for value in self.values if value.type.upper() == kind.upper()]
        return min(found, key=lambda value: value.index, default=None)

    def holds(self, now: float) -> float:
        """For how many seconds it holds. `now` is in seconds since 1970."""
        ttls = [value.ttl - now if value.absolute else value.ttl for value in self.values]
        return min(max(min(ttls, default=DEFAULT_TTL), SHORTEST), LONGEST)


def load(body: bytes) -> dict[str, Any]:
    """A JSON object of at most 256 KiB and 16 levels. Raises ValueError."""
    if len(body) > MAX_BYTES:
        raise ValueError(f"an answer of more than {MAX_BYTES} bytes")
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as reason:
        raise ValueError(f"not JSON: {reason}") from None
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - a wrong answer, not a wrong call
    level: list[Any] = [found]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            return found
    raise ValueError(f"nested deeper than {MAX_DEPTH}")


def read(handle: object, values: object) -> Record:
    """The record of a JSON answer's `handle` and `values`. Raises ValueError."""
    if not isinstance(handle, str) or not isinstance(values, list):
        raise ValueError("an answer without a handle or values")  # noqa: TRY004
    if len(values) > MAX_VALUES:
        raise ValueError(f"{len(values)} values; at most {MAX_VALUES}")
    return Record(handle, tuple(_value(each) for each in values))


def _value(found: object) -> Value:
    if not isinstance(found, dict):
        raise ValueError("a value that is no object")  # noqa: TRY004
    index, kind = found.get("index"), found.get("type")
    if type(index) is not int or not 0 <= index < 2**32 or not isinstance(kind, str):
        raise ValueError("a value without an index or a type")
    ttl, absolute = _ttl(found.get("ttl", DEFAULT_TTL))
    permissions = found.get("permissions", "1110")
    if not isinstance(permissions, str) or len(permissions) != 4 or set(permissions) - {"0", "1"}:
        raise ValueError(f"value {index}: permissions are four digits 0 or 1")
    references = found.get("references", [])
    if not isinstance(references, list) or len(references) > MAX_VALUES:
        raise ValueError(f"value {index}: references are a list")
    try:
        pairs = tuple((str(each["handle"]), int(each["index"])) for each in references)
    except (KeyError, TypeError, ValueError) as reason:
        raise ValueError(f"value {index}: a reference that is none: {reason}") from None
    if any(not 0 <= at < 2**31 for _, at in pairs):
        raise ValueError(f"value {index}: a reference to no index")
    return Value(index, kind, _bytes(found.get("data")), ttl, absolute, int(permissions, 2), pairs)


def _ttl(ttl: object) -> tuple[int, bool]:
    if type(ttl) is int and -(2**31) <= ttl < 2**31:
        return max(0, ttl), False
    if isinstance(ttl, str):
        moment = datetime.fromisoformat(ttl)
        return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()), True
    raise ValueError("a ttl that is neither seconds nor a time")


def _bytes(data: object) -> bytes | None:
    if isinstance(data, str):
        return data.encode()
    if not isinstance(data, dict):
        raise ValueError("data that is neither text nor an object")  # noqa: TRY004
    # `vlaue` is how one of the published interfaces spells it.
    kind, value = data.get("format"), data.get("value", data.get("vlaue"))
    found: bytes | None = None
    try:
        match kind, value:
            case "string", str():
                found = value.encode()
            case "base64", str():
                found = b64decode(value, validate=True)
            case "hex", str():
                found = bytes.fromhex(value)
            case "admin", dict():
                found = struct.pack(">H", int(str(value["permissions"]), 2)) + _reference(value)
            case "vlist", list():
                found = struct.pack(">i", len(value)) + b"".join(map(_reference, value))
            case "site" | "key", _:
                pass
            case _:
                raise ValueError("not a known one")
    except (KeyError, TypeError, ValueError, struct.error, binascii.Error) as reason:
        raise ValueError(f"data of the format {str(kind)[:40]!r}: {reason}") from reason
    return found


def _reference(found: dict[str, Any]) -> bytes:
    return _sized(str(found["handle"]).encode()) + struct.pack(">I", int(found["index"]))


def _sized(part: bytes) -> bytes:
    return struct.pack(">i", len(part)) + part
