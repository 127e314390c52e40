"""How a device encodes a tag: the type of its readings, the form of its bytes, and the values that mean "no value".

Every ValueError of this file reads "what is wrong; write what to write instead".
"""

from __future__ import annotations

import math
import re
import struct
from enum import StrEnum
from typing import NamedTuple

from agent.model import ValueType


class Form(StrEnum):
    """What a value's bytes mean where they are not simply those of its type. Each is a word of the `type` column."""

    FLOAT16 = "float16"
    """IEEE 754 binary16. Reads as float32, which holds each of its values."""
    BCD16 = "bcd16"
    """A decimal digit in each 4 bits. Reads as uint16; the wider ones as uint32 and uint64."""
    BCD32 = "bcd32"
    BCD64 = "bcd64"
    UNIX32 = "datetime[unix32]"
    """Seconds since 1970, unsigned. Every datetime reads as int64: ns UTC since 1970."""
    UNIX64 = "datetime[unix64]"
    """Seconds since 1970."""
    UNIX64_MS = "datetime[unix64ms]"
    """Milliseconds since 1970."""
    CP56 = "datetime[cp56]"
    """CP56Time2a of IEC 60870-5-4, the register of the year first."""
    YMDHMS = "datetime[ymdhms]"
    """Year (24 or 2024), month, day, hour, minute, second: a register each."""
    YMDHMS_MS = "datetime[ymdhmsms]"
    """The same, and a register of milliseconds."""
    BCD = "datetime[bcd]"
    """Packed decimal YYMM DDHH MMSS."""
    S7 = "datetime[s7]"
    """Siemens DATE_AND_TIME: packed decimal YYMM DDHH MMSS, three digits of ms, the day of the week."""

    @property
    def reads(self) -> ValueType:
        """The type of its readings, before scaling."""
        return _READS.get(self, ValueType.INT64)

    @property
    def registers(self) -> int:
        """How many it takes."""
        return _REGISTERS[self]

    @property
    def moment(self) -> bool:
        """Whether it is a date and time: not to be scaled."""
        return self.value.startswith("datetime[")


_READS = {
    Form.FLOAT16: ValueType.FLOAT32,
    Form.BCD16: ValueType.UINT16,
    Form.BCD32: ValueType.UINT32,
    Form.BCD64: ValueType.UINT64,
}
_REGISTERS = {
    Form.FLOAT16: 1, Form.BCD16: 1, Form.BCD32: 2, Form.BCD64: 4, Form.UNIX32: 2, Form.UNIX64: 4, Form.UNIX64_MS: 4,
    Form.CP56: 4, Form.YMDHMS: 6, Form.YMDHMS_MS: 7, Form.BCD: 3, Form.S7: 4,
}  # fmt: skip
_WIDTH = {"8": 1, "16": 1, "32": 2, "64": 4}
_PACK = {"float16": ">e", "float32": ">f", "float64": ">d"}
MAX_SENTINELS = 16


def registers(type: ValueType, length: int = 0, form: str = "") -> int:  # noqa: A002  (the word of the contract)
    """Registers (or bits: 1) that a tag of this type takes. `length` is the bytes of a string."""
    if form:
        return Form(form).registers
    if type is ValueType.BOOL:
        return 1
    if type is ValueType.STRING:
        return (length + 1) // 2
    return _WIDTH[type.value.lstrip("uintfloa")]


class Sentinels(NamedTuple):
    """The raw values that mean "no value": bit patterns of the value's width, and whether every NaN is one."""

    patterns: tuple[int, ...] = ()
    nan: bool = False


def sentinels(text: str, type: ValueType, form: str = "") -> Sentinels:  # noqa: A002
    """Those of an `invalid` cell such as `0x7FFF`, `-32768 | NaN`. Raises ValueError that says what to write.

    Hexadecimal is the pattern of all the value's bits, in its byte order; a decimal is the value before scaling.
    """
    word = form or type.value
    if not text:
        return Sentinels()
    if not type.is_number:
        raise ValueError(f"every {word} is a value; write nothing in this column")
    if form in (Form.YMDHMS, Form.YMDHMS_MS):
        raise ValueError(f"a {word} that is no date is bad by itself; write nothing in this column")
    parts = [part.strip() for part in text.split("|")]
    if len(parts) > MAX_SENTINELS:
        raise ValueError(f"{len(parts)} values; write at most {MAX_SENTINELS}, such as 0x7FFF|0x8000")
    bits = 8 if type in (ValueType.INT8, ValueType.UINT8) else 16 * registers(type, form=form)
    found: list[int] = []
    nan = False
    for part in parts:
        if re.fullmatch(r"0[xX][0-9A-Fa-f]{1,32}", part):
            if int(part, 16) >> bits:
                raise ValueError(f"{part} has more than the {bits} bits of {word}; write 0x{'F' * (bits // 4)}")
            found.append(int(part, 16))
        elif part.lower() == "nan":
            if word not in _PACK:
                raise ValueError(f"{word} has no NaN; write a number such as 0x{'F' * (bits // 4)}")
            nan = True
        else:
            found += _patterns(part, word, type, bits)
    return Sentinels(tuple(dict.fromkeys(found)), nan)


def _patterns(text: str, word: str, type: ValueType, bits: int) -> list[int]:  # noqa: A002
    """The bits of a number; zero has two signs where it is a float."""
    if len(text) > 40 or not re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", text):
        raise ValueError(
            f"{text[:40]!r} is not a raw value; write one such as 0x7FFF, -32768 or NaN, with | between two"
        )
    if word in _PACK:
        try:
            packed = struct.pack(_PACK[word], float(text))
        except OverflowError:
            packed = b""
        if not packed or math.isinf(float(text)):
            raise ValueError(f"{text} is no {word}; write its bits, such as 0x{'F' * (bits // 4)}")
        found = int.from_bytes(packed, "big")
        return [0, 1 << (bits - 1)] if found << 1 & (1 << bits) - 1 == 0 else [found]
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"{text} is not whole, and every {word} is; write one such as -32768 or 0x7FFF")
    value = int(text)
    if word.startswith("bcd"):
        if not 0 <= value < 10 ** (bits // 4):
            raise ValueError(
                f"{text} is no {word}; write a number of at most {bits // 4} digits, or 0x{'F' * (bits // 4)}"
            )
        return [int(str(value), 16)]
    if word in (Form.CP56, Form.BCD, Form.S7):
        raise ValueError(f"{text} is no {word}; write its bits, such as 0x{'0' * (bits // 4)}")
    least, most = (-(1 << bits - 1), (1 << bits - 1) - 1) if type in _SIGNED and word == type else (0, (1 << bits) - 1)
    if not least <= value <= most:
        raise ValueError(f"{text} is no {word}; write a number from {least} to {most}")
    return [value & (1 << bits) - 1]


_SIGNED = (ValueType.INT8, ValueType.INT16, ValueType.INT32, ValueType.INT64)
