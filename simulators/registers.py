"""How a device lays a value into Modbus registers: the exact inverse of what the agent's core decodes."""

from __future__ import annotations

import struct

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


def encode(tag: Tag, raw: Value) -> bytes:
    """The registers of `raw`, a value of `tag.type`, as they go over the wire: each two bytes, high byte first.

    `tag.order` says where the big-endian bytes A B C D of a value lie: `ABCD` as they are, `DCBA` all reversed, `BADC`
    swapped within every register, `CDAB` with the registers reversed. A string keeps its registers' order; 8 bits and
    a bool take the low byte of one register in every order. Raises ValueError for a string that has no room.
    """
    if tag.type is ValueType.STRING:
        text = str(raw).encode()
        if len(text) > tag.length:
            raise ValueError(f"{tag.device}.{tag.name}: {len(text)} bytes of text for a string of {tag.length}")
        padded = text.ljust(tag.length + tag.length % 2, b"\0")
        return _swapped(padded) if tag.order in ("BADC", "DCBA") else padded
    value = _PACK[tag.type](raw)
    if tag.order == "ABCD" or tag.type in _ONE_REGISTER:
        return value
    if tag.order == "DCBA":
        return value[::-1]
    if tag.order == "BADC":
        return _swapped(value)
    if tag.order == "CDAB":
        return _swapped(value[::-1])
    raise ValueError(f"{tag.device}.{tag.name}: no byte order {tag.order!r}")


def _swapped(registers: bytes) -> bytes:
    swapped = bytearray(registers)
    swapped[0::2], swapped[1::2] = registers[1::2], registers[0::2]
    return bytes(swapped)
