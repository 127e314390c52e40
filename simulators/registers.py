"""How a device lays a value into Modbus registers: the exact inverse of what the agent's core decodes.

Slow and plain on purpose, and written apart from the core: `tests/test_registers.py` holds one against the other.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime

from agent.encoding import Form, registers, sentinels
from agent.model import Tag, Value, ValueType

_FORMS = {
    ValueType.BOOL: ">H",
    ValueType.INT8: ">h",  # sign-extended to the whole register
    ValueType.UINT8: ">H",
    ValueType.INT16: ">h",
    ValueType.UINT16: ">H",
    ValueType.INT32: ">i",
    ValueType.UINT32: ">I",
    ValueType.INT64: ">q",
    ValueType.UINT64: ">Q",
    ValueType.FLOAT32: ">f",
    ValueType.FLOAT64: ">d",
}
_PACK = {kind: struct.Struct(form).pack for kind, form in _FORMS.items()}
_ONE_REGISTER = (ValueType.BOOL, ValueType.INT8, ValueType.UINT8)
_SINCE_1970 = {Form.UNIX32: (">I", 1), Form.UNIX64: (">Q", 1), Form.UNIX64_MS: (">Q", 1000)}


def encode(tag: Tag, raw: Value) -> bytes:
    """The registers of `raw`, a value of `tag.type`, as they go over the wire: each two bytes, high byte first.

    `tag.order` says where the big-endian bytes A B C D of a value lie: `ABCD` as they are, `DCBA` all reversed, `BADC`
    swapped within every register, `CDAB` with the registers reversed. A string and a datetime of one register for each
    part keep their registers' order; 8 bits and a bool take the low byte of one register in every order. None is
    written as the first of the tag's sentinels.

    Raises ValueError for a string that has no room, for a datetime that its form can't hold, and for None where the
    tag has no sentinel.
    """
    if tag.type is ValueType.STRING:
        text = str(raw).encode()
        if len(text) > tag.length:
            raise ValueError(f"{tag.device}.{tag.name}: {len(text)} bytes of text for a string of {tag.length}")
        padded = text.ljust(tag.length + tag.length % 2, b"\0")
        return _swapped(padded) if tag.order in ("BADC", "DCBA") else padded
    value = _nothing(tag) if raw is None else _plain(tag, raw)
    if tag.form in (Form.YMDHMS, Form.YMDHMS_MS):
        return _swapped(value) if tag.order in ("BADC", "DCBA") else value
    if tag.order == "ABCD" or tag.type in _ONE_REGISTER:
        return value
    if tag.order == "DCBA":
        return value[::-1]
    if tag.order == "BADC":
        return _swapped(value)
    if tag.order == "CDAB":
        return _swapped(value[::-1])
    raise ValueError(f"{tag.device}.{tag.name}: no byte order {tag.order!r}")


def _plain(tag: Tag, raw: Value) -> bytes:
    """The big-endian bytes of a value."""
    if not tag.form:
        return _PACK[tag.type](raw)
    form = Form(tag.form)
    if form is Form.FLOAT16:
        return struct.pack(">e", raw)
    assert isinstance(raw, int)
    if form.moment:
        return _moment(form, raw)
    return bytes.fromhex(f"{raw:0{4 * form.registers}d}")


def _nothing(tag: Tag) -> bytes:
    patterns, nan = sentinels(tag.invalid, tag.type, tag.form)
    if patterns:
        return patterns[0].to_bytes(2 * registers(tag.type, form=tag.form), "big")
    if nan:
        return _plain(tag, float("nan"))
    raise ValueError(f"{tag.device}.{tag.name}: no value, and no sentinel that says so")


def _moment(form: Form, time_ns: int) -> bytes:
    """`time_ns` (UTC since 1970) as the device's clock shows it, cut to what the form can show."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    milliseconds = rest // 1_000_000
    if form in _SINCE_1970:
        packing, factor = _SINCE_1970[form]
        return struct.pack(packing, seconds * factor + milliseconds * factor // 1000)
    now = datetime.fromtimestamp(seconds, UTC)
    parts = (now.month, now.day, now.hour, now.minute, now.second)
    if form is Form.YMDHMS:
        return struct.pack(">6H", now.year, *parts)
    if form is Form.YMDHMS_MS:
        return struct.pack(">7H", now.year, *parts, milliseconds)
    first = 1990 if form is Form.S7 else 2000
    if not first <= now.year < first + 100:
        raise ValueError(f"the year {now.year} has no place in a {form}")
    if form is Form.BCD:
        return bytes.fromhex(f"{now:%y%m%d%H%M%S}")
    if form is Form.S7:
        weekday = now.isoweekday() % 7 + 1  # Sunday is 1
        return bytes.fromhex(f"{now:%y%m%d%H%M%S}{milliseconds:03d}{weekday}")
    # CP56Time2a (IEC 60870-5-4, 6.8), its octets from the last to the first.
    day = now.isoweekday() << 5 | now.day
    return struct.pack(
        ">BBBBBBH", 0, now.year - 2000, now.month, day, now.hour, now.minute, now.second * 1000 + milliseconds
    )


def _swapped(words: bytes) -> bytes:
    swapped = bytearray(words)
    swapped[0::2], swapped[1::2] = words[1::2], words[0::2]
    return bytes(swapped)
