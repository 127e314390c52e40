"""Where a tag lies in its device: a Modbus table and number, or an OPC UA node.

Every ValueError of this file reads "what is wrong; write what to write instead".
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias
from uuid import UUID

from agent.model import ValueType

MODBUS_FORMS = (
    "hr:100 (holding register), ir:8 (input register), co:3 (coil), di:0 (discrete input) or hr:100.3 (bit 3)"
)
NODE_FORMS = "nsu=urn:plant;s=Furnace.Temp, i=2258 or nsu=urn:plant;path=/Objects/Furnace/Temp"
Order: TypeAlias = Literal["ABCD", "DCBA", "BADC", "CDAB"]
"""How the big-endian bytes A B C D of a value lie in its registers."""
MAX_TEXT = 4096
"""Characters of a namespace URI or a key: the specification's own limit for string node ids."""

_MODBUS = re.compile(r"([A-Za-z]+):([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_MODICON = re.compile(r"([0134])([0-9]{4,5})")
_NODE = re.compile(r"(?:(nsu|ns)=([^;]*);)?([isgb]|path)=(.*)", re.DOTALL)
_STEP = re.compile(r"(?:([0-9]{1,5}):)?((?:[^&/:.<>#!]|&.)+)", re.DOTALL)
_WIDTH = {"8": 1, "16": 1, "32": 2, "64": 4}


class ModbusTable(StrEnum):
    """The four tables of a Modbus device."""

    CO = "co"
    DI = "di"
    HR = "hr"
    IR = "ir"

    @property
    def bits(self) -> bool:
        """Whether the table holds single bits (coils, discrete inputs) and not registers."""
        return self in (ModbusTable.CO, ModbusTable.DI)


@dataclass(frozen=True, slots=True)
class ModbusAddress:
    """`hr:100`, `ir:8`, `co:3`, `di:0`; `hr:100.3` is bit 3 of register 100 (0 = least significant).

    `number` is zero-based, as on the wire: what manuals call 40101 is `hr:100`.
    """

    table: ModbusTable
    number: int
    bit: int | None = None

    @classmethod
    def parse(cls, text: str) -> ModbusAddress:
        """Raises ValueError that says what to write."""
        found = _MODBUS.fullmatch(text)
        if not found:
            raise ValueError(f"{text[:80]!r} is not a Modbus address; write {_modicon(text) or MODBUS_FORMS}")
        word, number, bit = found[1].lower(), int(found[2]), found[3]
        try:
            table = ModbusTable(word)
        except ValueError:
            raise ValueError(f"{found[1][:20]!r} is not a Modbus table; write {MODBUS_FORMS}") from None
        if number > 65535:
            raise ValueError(f"{text!r} is past the last address; write a number from 0 to 65535, such as {word}:100")
        if bit is None:
            return cls(table, number)
        if table.bits:
            raise ValueError(f"{text!r} names a bit of what is one bit already; write {word}:{number}")
        if int(bit) > 15:
            raise ValueError(f"{text!r} names a bit that a register does not have; write a bit from 0 to 15")
        return cls(table, number, int(bit))

    @property
    def text(self) -> str:
        """The canonical form, which `parse` takes back."""
        return f"{self.table.value}:{self.number}" + ("" if self.bit is None else f".{self.bit}")


def _modicon(text: str) -> str:
    """What to write for a manual's one-based number such as 40101; empty where `text` is none."""
    found = _MODICON.fullmatch(text)
    if not found or not 1 <= int(found[2]) <= 65536:
        return ""
    word = {"0": "co", "1": "di", "3": "ir", "4": "hr"}[found[1]]
    return f"{word}:{int(found[2]) - 1} (zero-based, as on the wire)"


def registers(type: ValueType, length: int = 0) -> int:  # noqa: A002  (the word of the contract)
    """Registers (or bits: 1) that a tag of this type takes. `length` is the bytes of a string."""
    if type is ValueType.BOOL:
        return 1
    if type is ValueType.STRING:
        return (length + 1) // 2
    return _WIDTH[type.value.lstrip("uintfloa")]


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """An OPC UA node: `nsu=urn:plant;s=Furnace.Temp`, `ns=2;i=7`, `i=2258` (namespace 0).

    Or the way to it from the root: `nsu=urn:plant;path=/Objects/Furnace/2:Temp`. A step is a browse name, in the
    namespace of its own index where it has one (`2:`), else in the path's; the first is one of the standard's folders.
    The characters `/ . < > : # ! &` of a name are written with an `&` before them (OPC 10000-4, A.2).

    `namespace` is the namespace's URI, or its index where the config gives one. `key` is an int for kind `i`, a str
    for `s` and `path`, a UUID for `g`, bytes for `b`.
    """

    namespace: str | int
    kind: Literal["i", "s", "g", "b", "path"]
    key: int | str | UUID | bytes

    @classmethod
    def parse(cls, text: str) -> NodeAddress:
        """Raises ValueError that says what to write."""
        found = _NODE.fullmatch(text)
        if not found:
            raise ValueError(f"{text[:80]!r} is not an OPC UA node id; write {NODE_FORMS}")
        if len(text) > MAX_TEXT:
            raise ValueError(f"a node id of {len(text)} characters; write at most {MAX_TEXT}")
        form, place, kind, key = found.groups()
        namespace: str | int = 0
        if form == "nsu":
            if not place:
                raise ValueError(f"{text!r} has an empty namespace URI; write {NODE_FORMS}")
            namespace = place.replace("%3B", ";").replace("%3b", ";").replace("%25", "%")
        elif form == "ns":
            namespace = _whole(place, 65535, "namespace index")
        match kind:
            case "i":
                return cls(namespace, "i", _whole(key, 2**32 - 1, "numeric node id"))
            case "s":
                if not key:
                    raise ValueError(f"{text!r} has an empty key; write {NODE_FORMS}")
                return cls(namespace, "s", key)
            case "g":
                return cls(namespace, "g", _uuid(key))
            case "path":
                found_path = cls(namespace, "path", key)
                if len(found_path.steps) < 2:
                    raise ValueError(f"{text[:80]!r} is not a browse path; write path=/Objects/2:Furnace/2:Temp")
                return found_path
            case _:
                return cls(namespace, "b", _bytes(key))

    @property
    def steps(self) -> list[tuple[int | None, str]]:
        """(namespace index or None for the address's own, browse name) of each step of a path; none of anything that
        is no whole path."""
        rest = str(self.key) if self.kind == "path" else ""
        found: list[tuple[int | None, str]] = []
        while rest:
            step = _STEP.match(rest[1:]) if rest[0] == "/" else None
            if step is None or int(step[1] or 0) > 65535:
                return []
            space = int(step[1]) if step[1] else None if found else 0
            found.append((space, re.sub(r"&(.)", r"\1", step[2], flags=re.DOTALL)))
            rest = rest[1 + step.end() :]
        return found

    @property
    def text(self) -> str:
        """The canonical form, which `parse` takes back; `ns=0;` is left out."""
        match self.key:
            case UUID():
                key = str(self.key)
            case bytes():
                key = base64.b64encode(self.key).decode()
            case _:
                key = str(self.key)
        if isinstance(self.namespace, str):
            escaped = self.namespace.replace("%", "%25").replace(";", "%3B")
            return f"nsu={escaped};{self.kind}={key}"
        return f"ns={self.namespace};{self.kind}={key}" if self.namespace else f"{self.kind}={key}"


def _whole(text: str, most: int, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > most:
        raise ValueError(f"{text[:40]!r} is not a {what}; write a whole number from 0 to {most}")
    return int(text)


def _uuid(text: str) -> UUID:
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text):
        raise ValueError(f"{text[:40]!r} is not a GUID; write g=09087e75-8e5e-499b-954f-f2a9603db28a")
    return UUID(text)


def _bytes(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        found = b""
    if not found:
        raise ValueError(f"{text[:40]!r} is not base64; write b=M/RbKBsRVkePCePcx24oRA==")
    return found
