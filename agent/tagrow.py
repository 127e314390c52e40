"""One row of a tag list: what each cell may hold, and what its refusal tells people to write."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated, NamedTuple, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationInfo

from agent import labels, quantity
from agent.address import ORDERS, ModbusAddress, NodeAddress
from agent.encoding import Form, registers, sentinels
from agent.model import ValueType
from agent.wording import likely

MAX_STRING = 250
"""Bytes: what the 125 registers of one Modbus request hold."""
_TYPES = tuple(kind.value for kind in ValueType)
_FORMS = tuple(form.value for form in Form)
_MODBUS_TYPES = (*_TYPES, *_FORMS)
_MODBUS_HINTS = (*(kind.value for kind in ValueType if kind.is_number or kind is ValueType.BOOL), "string[16]", *_FORMS)
"""Those that a device can have."""
POLL = quantity.duration_within("1ms", "24h")
"""How often a tag or a whole device may be read."""
_PLC = {
    "real": "float32", "float": "float32", "lreal": "float64", "double": "float64", "boolean": "bool", "bit": "bool",
    "sint": "int8", "int": "int16", "dint": "int32", "lint": "int64", "usint": "uint8", "byte": "uint8",
    "uint": "uint16", "word": "uint16", "udint": "uint32", "dword": "uint32", "ulint": "uint64", "lword": "uint64",
    "short": "int16", "ushort": "uint16", "single": "float32", "s8": "int8", "s16": "int16", "s32": "int32",
    "s64": "int64", "str": "string", "text": "string", "bytestring": "bytes", "blob": "bytes",
}  # fmt: skip
_IDENTIFIER, _DESCRIPTION = 255, 1000
"""Characters."""
_BOUNDS = {"deadband": "0.1", "swinging_door": "0.5", "grid": "0.05"}
"""The filters that have a bound, with one that people might write."""
Address: TypeAlias = ModbusAddress | NodeAddress


class DataType(NamedTuple):
    """A cell of the `type` column. `length` is the bytes of a Modbus string, 0 for every other type; `form` how a
    Modbus device encodes the type where it is not by its own bytes."""

    type: ValueType
    length: int = 0
    form: str = ""

    @property
    def word(self) -> str:
        """As the column has it."""
        return self.form or self.type.value


def _address(text: str, info: ValidationInfo) -> Address:
    return ModbusAddress.parse(text) if _protocol(info) == "modbus" else NodeAddress.parse(text)


def _type(text: str, info: ValidationInfo) -> DataType:
    modbus = _protocol(info) == "modbus"
    sized = re.fullmatch(r"string\[([0-9]{1,9})\]", text)
    if not sized and text not in (_MODBUS_TYPES if modbus else _TYPES):
        raise ValueError(f"{quantity.shown(text)} is not a type; {_other_type(text, modbus)}")
    if text in _FORMS:
        found = DataType(Form(text).reads, form=text)
    else:
        found = DataType(ValueType.STRING, int(sized[1])) if sized else DataType(ValueType(text))
    if modbus and (found.type.is_array or found.type is ValueType.BYTES):
        meant = "a tag for each element" if found.type.is_array else "string[16], or a number's type"
        raise ValueError(f"Modbus has no {found.type}; write {meant}")
    if not modbus:
        if sized:
            raise ValueError(f"{text!r}: an OPC UA string brings its own length; write string")
        return found
    if found.type is ValueType.STRING and not 1 <= found.length <= MAX_STRING:
        raise ValueError(f"{text!r} does not say how long it is; write string[16], with 1 to {MAX_STRING} bytes")
    address = info.data.get("address")
    if isinstance(address, ModbusAddress):
        fits(found, address)
    return found


def _other_type(text: str, modbus: bool) -> str:
    """What to write instead of a word that is no type here."""
    if text in _FORMS:
        return f"write {Form(text).reads.value}, which is what an OPC UA server gives"
    plc = "".join(text.lower().split())
    choices = _MODBUS_HINTS if modbus else _TYPES
    if modbus and plc.partition("[")[0] in ("datetime", "time", "date_and_time", "dt", "timestamp"):
        return f"write {', '.join(form for form in Form if form.moment)}"
    if modbus and re.fullmatch(r"string\[[0-9]{1,9}\]", plc):
        return f"write {plc}"
    element, bracket, _ = plc.partition("[")
    known = _PLC.get(element) or (element if element in choices else None)
    known = known or ({"half": "float16", "bcd": "bcd16", "lbcd": "bcd32"}.get(element) if modbus else None)
    if known == "string" and modbus:
        return "write string[16], with the bytes that it has"
    if known:
        return (
            f"write {known}, and a tag for each element"
            if bracket and modbus
            else f"write {known}{'[]' * bool(bracket)}"
        )
    width = re.findall("[0-9]+", plc)
    alike = [word for word in choices if not width or re.findall("[0-9]+", word) == width]
    wanted = likely(text, alike) if alike else f"write one of {', '.join(choices)}"
    return wanted.replace("? write", "?; write")


def fits(found: DataType, address: ModbusAddress) -> None:
    """Raises ValueError where a Modbus address can't hold the type."""
    if found.type is not ValueType.BOOL:
        if address.table.bits:
            raise ValueError(
                f"{address.text} is one bit and can't hold {found.word}; write bool, or a register's address"
            )
        if address.bit is not None:
            raise ValueError(f"{address.text} is one bit and can't hold {found.word}; write bool, or leave out the bit")
    if address.byte is not None and found.word not in ("int8", "uint8"):
        raise ValueError(f"{address.text} is one byte and can't hold {found.word}; write int8 or uint8")
    width = registers(found.type, found.length, found.form)
    if address.number + width > 65536:
        raise ValueError(
            f"{found.word} takes {width} registers, past the last one; write an address up to {65536 - width}"
        )


def _order(text: str) -> str:
    if text.upper() not in ORDERS:
        raise ValueError(f"{quantity.shown(text)} is not a byte order; write ABCD, DCBA, BADC or CDAB")
    return ORDERS[text.upper()]


def _factor(text: str, info: ValidationInfo) -> float:
    kind = info.data.get("type")
    if kind and not kind.type.is_number:
        raise ValueError(f"a {kind.type} can't be scaled; write nothing in this column")
    if kind and kind.form in _FORMS and Form(kind.form).moment:
        raise ValueError("a date and time can't be scaled; write nothing in this column")
    found = quantity.number(text)
    if info.field_name == "scale" and found == 0:
        raise ValueError("a scale of 0 makes every reading the same; write 1, or nothing")
    return found


def _limit(text: str, info: ValidationInfo) -> float:
    found = quantity.number(text)
    low = info.data.get("low")
    if info.field_name == "high" and low is not None and found <= low:
        raise ValueError(f"high is {found:g} and low is {low:g}; write a high above the low")
    return found


def _filter(text: str, info: ValidationInfo) -> str:
    rule, semicolon, rest = (part.strip() for part in text.partition(";"))
    word, equals, bound = (part.strip() for part in rule.partition("="))
    if word == "heartbeat":
        raise ValueError(f"{quantity.shown(text)} has nothing to interrupt; write on_change; heartbeat=60s")
    if word not in ("on_change", *_BOUNDS) or bool(equals) == (word == "on_change"):
        forms = {name: f"{name}={example}" for name, example in _BOUNDS.items()} | {"on_change": "on_change"}
        meant = likely(word, forms).rpartition("write ")[2]
        wanted = forms.get(meant) or ", ".join(forms.values())
        raise ValueError(f"{quantity.shown(text)} is not a filter; write {wanted}, or nothing")
    found = f"{word}={_bound(word, bound, info)}" if equals else word
    if found == "deadband=0":
        found = "on_change"  # whatever differs is outside a deadband of zero
    return f"{found}; heartbeat={_heartbeat(rest)}" if semicolon else found


def _bound(word: str, text: str, info: ValidationInfo) -> str:
    """A filter's bound as the core reads it: a number above zero, for a deadband also with a % after it, or zero."""
    noun = word.replace("_", " ")
    kind = info.data.get("type")
    if kind and not kind.type.is_number:
        raise ValueError(f"a {kind.type} has no {noun}; write on_change, or nothing")
    share = text.removesuffix("%").rstrip()
    percent = share != text
    found = quantity.number(share)
    if found < 0:
        raise ValueError(f"a {noun} of {found:g} is below zero; write {word}={_BOUNDS[word]}")
    if percent and word != "deadband":
        raise ValueError(f"a {noun} has no percent; write it in the tag's unit, such as {word}={_BOUNDS[word]}")
    if percent and found > 100:
        raise ValueError(f"a {noun} of {found:g} % is more than the range; write one up to 100%, such as deadband=2%")
    if found == 0 and word != "deadband":
        raise ValueError(f"a {noun} of zero leaves nothing out; write {word}={_BOUNDS[word]}, or nothing")
    if found == 0:
        return "0"
    if not percent:
        return share
    # Where a limit is not in there, it was wrong itself, and said so. An OPC UA server may know the range (EURange).
    if _protocol(info) != "opcua" and any(info.data.get(limit, 0.0) is None for limit in ("low", "high")):
        raise ValueError(f"{share}% of a range that is not known; write the tag's low and high, or deadband=0.1")
    return f"{share}%"


def _heartbeat(text: str) -> str:
    word, _, duration = (part.strip() for part in text.partition("="))
    if word != "heartbeat":
        raise ValueError(f"{quantity.shown(text)} can't follow a filter; write heartbeat=60s after the semicolon")
    try:
        seconds = quantity.seconds(duration)
    except ValueError as reason:
        raise ValueError(f"{str(reason).partition('; write ')[0]}; write heartbeat=60s (or with ms, m, h)") from None
    if not 0.001 <= seconds <= 31 * 86400:
        raise ValueError(f"a heartbeat of {duration} is out of range; write one from 1ms to 744h")
    return "".join(duration.split())


def _invalid(text: str, info: ValidationInfo) -> str:
    _modbus_only(info)
    kind = info.data.get("type")
    if kind:
        sentinels(text, kind.type, kind.form)
    return "|".join(part.strip() for part in text.split("|"))


def _poll(text: str, info: ValidationInfo) -> float:
    _modbus_only(info)
    return POLL(quantity.seconds(text))


def _together(text: str, info: ValidationInfo) -> str:
    _modbus_only(info)
    return quantity.name(text)


def _alone(text: str, info: ValidationInfo) -> bool:
    _modbus_only(info)
    found = _yes(text)
    if found and info.data.get("together"):
        raise ValueError("a tag can't be read alone and together with others; write yes, or the word in together")
    return found


def _modbus_only(info: ValidationInfo) -> None:
    if _protocol(info) != "modbus":
        raise ValueError(f"an OPC UA server knows no {info.field_name}; write nothing in this column")


def _yes(text: str) -> bool:
    if text.lower() not in ("yes", "true", "1", "no", "false", "0"):
        raise ValueError(f"{quantity.shown(text)} is neither yes nor no; write yes, or nothing")
    return text.lower() in ("yes", "true", "1")


def _line(most: int) -> AfterValidator:
    return AfterValidator(lambda text: quantity.printable(text, most))


def _protocol(info: ValidationInfo) -> str:
    return str(info.context["protocol"]) if info.context else "modbus"


class TagRow(BaseModel):
    """One row. Empty cells are left out before; `protocol` ("modbus", "opcua") comes in the validation context."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, AfterValidator(quantity.name)] = Field(examples=["temp"])
    address: Annotated[Address, PlainValidator(_address)] = Field(examples=["hr:100"])
    type: Annotated[DataType, PlainValidator(_type)] = Field(examples=["float32"])
    order: Annotated[str, AfterValidator(_order)] = ""
    unit: Annotated[str, _line(64)] = ""
    scale: Annotated[float | None, PlainValidator(_factor)] = None
    offset: Annotated[float | None, PlainValidator(_factor)] = None
    low: Annotated[float | None, PlainValidator(_limit)] = None
    high: Annotated[float | None, PlainValidator(_limit)] = None
    invalid: Annotated[str, PlainValidator(_invalid)] = ""
    poll: Annotated[float | None, PlainValidator(_poll)] = None
    together: Annotated[str, PlainValidator(_together)] = ""
    alone: Annotated[bool, PlainValidator(_alone)] = False
    filter: Annotated[str, PlainValidator(_filter)] = ""
    identifier: Annotated[str, _line(_IDENTIFIER)] = ""
    redundant: Annotated[bool, PlainValidator(_yes)] = False
    domain: Annotated[str, PlainValidator(labels.domain)] = ""
    level: Annotated[int | None, PlainValidator(labels.level)] = None
    category: Annotated[str, PlainValidator(labels.category)] = ""
    description: Annotated[str, AfterValidator(lambda text: " ".join(text.split())), _line(_DESCRIPTION)] = ""

    def traits(self) -> Traits:
        """Its cells that other rows have as well."""
        return Traits(**{name: getattr(self, name) for name in _TRAITS})


OWN = ("name", "address", "identifier", "description")
"""The columns in which each row is another; in the rest a hundred thousand rows have a few forms between them."""


def own_text(identifier: str, description: str) -> tuple[str, str]:
    """Both as a row has them. Raises ValueError."""
    return quantity.printable(identifier, _IDENTIFIER), quantity.printable(" ".join(description.split()), _DESCRIPTION)


@dataclass(frozen=True, slots=True)
class Traits:
    """All that a row says of its tag beside the columns of `OWN`. Rows with the same cells share one."""

    type: DataType
    order: str
    unit: str
    scale: float | None
    offset: float | None
    low: float | None
    high: float | None
    invalid: str
    poll: float | None
    together: str
    alone: bool
    filter: str
    redundant: bool
    domain: str
    level: int | None
    category: str


_TRAITS = tuple(each.name for each in fields(Traits))
