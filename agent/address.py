"""Where a tag lies in its device: a Modbus table and number, or an OPC UA node.

Every ValueError of this file reads "what is wrong; write what to write instead".
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias
from uuid import UUID

from agent.encoding import registers

__all__ = ["MODBUS_FORMS", "NODE_FORMS", "ORDERS", "ModbusAddress", "ModbusTable", "NodeAddress", "Order", "registers"]

MODBUS_FORMS = (
    "hr:100 (holding register), ir:8 (input register), co:3 (coil), di:0 (discrete input), hr:100.3 (bit 3), "
    "hr:100.h (high byte) or a number of a manual such as 40101"
)
NODE_FORMS = "nsu=urn:plant;s=Furnace.Temp, i=2258 or nsu=urn:plant;path=/Objects/Furnace/Temp"
Order: TypeAlias = Literal["ABCD", "DCBA", "BADC", "CDAB"]
"""How the big-endian bytes A B C D of a value lie in its registers."""
ORDERS: dict[str, Order] = {
    "ABCD": "ABCD", "DCBA": "DCBA", "BADC": "BADC", "CDAB": "CDAB",
    "ABCDEFGH": "ABCD", "HGFEDCBA": "DCBA", "BADCFEHG": "BADC", "GHEFCDAB": "CDAB",
    "AB": "ABCD", "BA": "BADC",
}  # fmt: skip
"""Every name of an order, those of eight and of two bytes included, and the rule that it stands for."""
MAX_TEXT = 4096
"""Characters of a namespace URI or a key: the specification's own limit for string node ids."""

_MODBUS = re.compile(r"([A-Za-z]+):([0-9]{1,9})(?:\.([0-9]{1,9}|[hHlL]))?")
_TRADITIONAL = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}|[hHlL]))?")
_OF_A_PLC = re.compile(
    r"%[A-Za-z]{1,3}[0-9].*|DB[0-9]+[.,].*|(?!hr|ir|co|di)[A-Za-z]{1,3}[0-9]{1,6}(?:[.:/][0-9A-Fa-f]{1,4})?",
    re.IGNORECASE,
)
"""What a PLC's own program calls a place: %MW100, DB1.DBD4, D100, N7:0."""
_TABLES = {"0": "co", "1": "di", "3": "ir", "4": "hr"}
_NODE = re.compile(r"(?:(nsu|ns)=([^;]*);)?([isgb]|path)=(.*)", re.DOTALL)
_WITH_FIELD = re.compile(r"((?:[^#]|##)*)(?:#([^#]+))?", re.DOTALL)
_PATH_WITH_FIELD = re.compile(r"((?:[^#&]|&.)*)(?:#([^#]+))?", re.DOTALL)
_STEP = re.compile(r"(?:([0-9]{1,5}):)?((?:[^&/:.<>#!]|&.)+)", re.DOTALL)


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
    """`hr:100`, `ir:8`, `co:3`, `di:0`; `hr:100.3` is bit 3 of register 100 (0 = least significant), `hr:100.h` its
    high byte (the first on the wire) and `hr:100.l` its low one.

    `number` is zero-based, as on the wire. Manuals count from one, behind a digit for the table: 40101 and 400101 are
    both `hr:100`, 30001 is `ir:0`, 10001 `di:0` and 00001 `co:0`. `digits` says how such a number was written (5 or 6;
    0 otherwise), for whoever reads a whole list; it is no part of where the tag lies.
    """

    table: ModbusTable
    number: int
    bit: int | None = None
    byte: Literal["h", "l"] | None = None
    digits: int = field(default=0, compare=False)

    @classmethod
    def parse(cls, text: str) -> ModbusAddress:
        """Raises ValueError that says what to write."""
        if found := _TRADITIONAL.fullmatch(text):
            return cls._within(*_traditional(text, found[1], found[2]))
        found = _MODBUS.fullmatch(text)
        if not found and _OF_A_PLC.fullmatch(text):
            raise ValueError(
                f"{text[:80]!r} is a PLC's own name, and not a Modbus address; write the register that the PLC's "
                "Modbus table gives for it, such as hr:100"
            )
        if not found:
            raise ValueError(f"{text[:80]!r} is not a Modbus address; write {MODBUS_FORMS}")
        word, number, part = found[1].lower(), int(found[2]), found[3]
        if word not in tuple(ModbusTable):
            raise ValueError(f"{found[1][:20]!r} is not a Modbus table; write {MODBUS_FORMS}")
        if number > 65535:
            raise ValueError(f"{text!r} is past the last address; write a number from 0 to 65535, such as {word}:100")
        return cls._within(word, number, part, 0)

    @classmethod
    def _within(cls, word: str, number: int, part: str | None, digits: int) -> ModbusAddress:
        """The address, with a bit or a byte of its register where there is a `part`."""
        table = ModbusTable(word)
        if part is None:
            return cls(table, number, digits=digits)
        text = f"{word}:{number}.{part}"
        if table.bits:
            raise ValueError(f"{text!r} names a part of what is one bit already; write {word}:{number}")
        if part in "hHlL":
            return cls(table, number, byte="h" if part in "hH" else "l", digits=digits)
        if int(part) > 15:
            raise ValueError(f"{text!r} names a bit that a register does not have; write a bit from 0 to 15")
        return cls(table, number, int(part), digits=digits)

    @property
    def text(self) -> str:
        """The canonical form, which `parse` takes back."""
        part = self.byte if self.bit is None else self.bit
        return f"{self.table.value}:{self.number}" + ("" if part is None else f".{part}")


def _traditional(text: str, number: str, part: str | None) -> tuple[str, int, str | None, int]:
    """Table, zero-based number, part and digits of a manual's number. What a spreadsheet may have changed is refused
    rather than guessed at."""
    count = len(number)
    if count < 5:
        coil = f"co:{int(number) - 1}" if int(number) else "co:0"
        raise ValueError(
            f"{text!r} has no digit for its table (a spreadsheet drops the zeros in front of a coil's number); write "
            f"{coil} if it is coil {int(number) or 1}, or 4 and four digits for a holding register, such as 40101"
        )
    word = _TABLES.get(number[0])
    one_based = int(number[1:])
    if count > 6 or word is None or not 1 <= one_based <= 65536:
        raise ValueError(
            f"{text[:20]!r} is no number of a manual (00001 coils, 10001 discrete inputs, 30001 input and 40001 "
            "holding registers, or with six digits 400001 to 465536); write hr:100 for what a manual calls 40101"
        )
    place = f"{word}:{one_based - 1}"
    if part == "1":
        raise ValueError(f"{text!r} may have been .10 before a spreadsheet saw it; write {place}.1 or {place}.10")
    return word, one_based - 1, part, count


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """An OPC UA node: `nsu=urn:plant;s=Furnace.Temp`, `ns=2;i=7`, `i=2258` (namespace 0).

    Or the way to it from the root: `nsu=urn:plant;path=/Objects/Furnace/2:Temp`. A step is a browse name, in the
    namespace of its own index where it has one (`2:`), else in the path's; the first is one of the standard's folders.
    The characters `/ . < > : # ! &` of a name are written with an `&` before them (OPC 10000-4, A.2).

    `field` is a field of the node's structure, behind a `#`: `nsu=urn:plant;s=Machine#Position.X`. A `#` of a string
    key itself is written `##`.

    `namespace` is the namespace's URI, or its index where the config gives one. `key` is an int for kind `i`, a str
    for `s` and `path`, a UUID for `g`, bytes for `b`.
    """

    namespace: str | int
    kind: Literal["i", "s", "g", "b", "path"]
    key: int | str | UUID | bytes
    field: str = ""

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
        key, part = _apart(text, key, kind)
        match kind:
            case "i":
                return cls(namespace, "i", _whole(key, 2**32 - 1, "numeric node id"), part)
            case "s":
                if not key:
                    raise ValueError(f"{text!r} has an empty key; write {NODE_FORMS}")
                return cls(namespace, "s", key, part)
            case "g":
                return cls(namespace, "g", _uuid(key), part)
            case "path":
                found_path = cls(namespace, "path", key, part)
                if len(found_path.steps) < 2:
                    raise ValueError(f"{text[:80]!r} is not a browse path; write path=/Objects/2:Furnace/2:Temp")
                return found_path
            case _:
                return cls(namespace, "b", _bytes(key), part)

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
                key = str(self.key).replace("#", "##") if self.kind == "s" else str(self.key)
        if self.field:
            key += f"#{self.field}"
        if isinstance(self.namespace, str):
            escaped = self.namespace.replace("%", "%25").replace(";", "%3B")
            return f"nsu={escaped};{self.kind}={key}"
        return f"ns={self.namespace};{self.kind}={key}" if self.namespace else f"{self.kind}={key}"


def _apart(text: str, key: str, kind: str) -> tuple[str, str]:
    """A key, and the field behind it."""
    found = (_PATH_WITH_FIELD if kind == "path" else _WITH_FIELD).fullmatch(key)
    if not found or not all((found[2] or "x").split(".")):
        written = "&#" if kind == "path" else "##"
        raise ValueError(
            f"{text[:80]!r} has a # that begins no field; write {written} for a # of the node's own name, or a field "
            "of its structure at the end, such as #Speed or #Position.X"
        )
    return found[1].replace("##", "#") if kind == "s" else found[1], found[2] or ""


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
