"""What the virtual plant lays into registers is what the core takes out of them: every type, form, order and place."""

from __future__ import annotations

import math
import random
import struct
from dataclasses import replace

import pytest

from agent._native import Buffer
from agent.address import ModbusTable
from agent.collectors.requests import requests
from agent.encoding import Form
from agent.model import StatusCode, Tag, Value, ValueType
from simulators.modbus_image import Image
from simulators.plant import INTEGER_RANGES, Plant
from simulators.registers import encode
from tests.test_plant import T0, naive_decode, tag

ORDERS = ("ABCD", "DCBA", "BADC", "CDAB")
FORMS: list[tuple[ValueType, str]] = [
    *((kind, "") for kind in ValueType if not kind.is_array and kind is not ValueType.BYTES),
    *((form.reads, form.value) for form in Form),
]
ROUNDS = 60
SECOND, MILLISECOND = 1_000_000_000, 1_000_000


def drawn(chance: random.Random, one: Tag) -> Value:
    """Any raw value that a device may hold in this form, edges among them."""
    match one.type:
        case ValueType.BOOL:
            return chance.random() < 0.5
        case ValueType.STRING:
            text = "".join(chance.choices("aZ9 °µ压", k=chance.randint(0, one.length)))
            return text.encode()[: one.length].decode(errors="ignore")
        case ValueType.FLOAT32 | ValueType.FLOAT64:
            form = "<e" if one.form else "<f" if one.type is ValueType.FLOAT32 else "<d"
            while True:
                value: float = struct.unpack(form, chance.randbytes(struct.calcsize(form)))[0]
                if not math.isnan(value):
                    return value
    if one.form and Form(one.form).moment:
        # What all forms can show: 2000 to 2089, in ms where the form has them.
        seconds = chance.randrange(946_684_800, 3_786_912_000)
        fine = Form(one.form) in (Form.UNIX64_MS, Form.CP56, Form.YMDHMS_MS, Form.S7)
        return seconds * SECOND + (chance.randrange(1000) * MILLISECOND if fine else 0)
    low, high = INTEGER_RANGES[one.type]
    if one.form:
        high = 10 ** (4 * Form(one.form).registers) - 1
    return chance.choice((low, high, 0, chance.randint(low, high), chance.randint(low, high)))


def decoded(one: Tag, registers: bytes) -> tuple[Value, int]:
    """What the core makes of registers: (value, quality)."""
    buffer = Buffer([one])
    (request,) = requests([one])
    buffer.push_registers(buffer.modbus_plan(request.fields()), registers, T0)
    ((_, _, value, quality),) = buffer.latest()
    return value, quality


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_the_core_decodes_what_the_plant_encodes(kind: ValueType, form: str, order: str) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    one = tag("v", kind, form=form, order=order, length=17 if kind is ValueType.STRING else 0)
    for _ in range(ROUNDS):
        raw = drawn(chance, one)
        registers = encode(one, raw)
        assert decoded(one, registers) == (raw, StatusCode.GOOD), f"seed {seed}: {registers.hex()}"
        if not form:
            assert naive_decode(registers, kind, order) == raw, f"seed {seed}"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kind", "form", "invalid"),
    [
        (ValueType.INT16, "", "0x7FFF"),
        (ValueType.INT16, "", "-32768"),
        (ValueType.UINT32, "", "0x00008000"),
        (ValueType.INT64, "", "-9223372036854775808"),
        (ValueType.UINT8, "", "0xFF"),
        (ValueType.FLOAT32, "", "NaN"),
        (ValueType.FLOAT32, "", "-9999.5"),
        (ValueType.FLOAT64, "", "1e30 | NaN"),
        (ValueType.FLOAT32, "float16", "NaN"),
        (ValueType.UINT16, "bcd16", "0xFFFF"),
        (ValueType.UINT32, "bcd32", "99999999"),
        (ValueType.INT64, "datetime[cp56]", "0xFFFFFFFFFFFFFFFF"),
    ],
)
def test_no_value_is_a_bad_reading_without_one(kind: ValueType, form: str, invalid: str, order: str) -> None:
    one = tag("v", kind, form=form, order=order, invalid=invalid)
    assert decoded(one, encode(one, None)) == (None, StatusCode.BAD_SENSOR_FAILURE)
    with pytest.raises(ValueError, match="no sentinel"):
        encode(replace(one, invalid=""), None)


def test_the_moment_of_known_bytes() -> None:
    now = 1_709_251_198_765 * MILLISECOND  # Thursday, 2024-02-29 23:59:58.765 UTC
    for form, registers in (
        (Form.UNIX32, "65e11a7e"),
        (Form.UNIX64, "0000000065e11a7e"),
        (Form.UNIX64_MS, "0000018df74f7f2d"),
        (Form.CP56, "0018029d173be58d"),
        (Form.YMDHMS, "07e80002001d0017003b003a"),
        (Form.YMDHMS_MS, "07e80002001d0017003b003a02fd"),
        (Form.BCD, "240229235958"),
        (Form.S7, "2402292359587655"),
    ):
        assert encode(tag("t", ValueType.INT64, form=form.value), now).hex() == registers, form
    with pytest.raises(ValueError, match="the year 1999 has no place"):
        encode(tag("t", ValueType.INT64, form="datetime[bcd]"), 946_684_799 * SECOND)


@pytest.mark.parametrize(("kind", "form"), FORMS)
def test_a_plant_of_every_form_reads_back(kind: ValueType, form: str) -> None:
    tags = [
        replace(tag(name, kind, form=form, length=12), order=order)
        for name in ("temp", "count", "state", "setpoint", "clock")
        for order in ORDERS
    ]
    plant = Plant(tags, 5)
    for one in tags:
        for k in range(20):
            raw = plant.raw(one, T0 + k * SECOND)
            assert decoded(one, encode(one, raw)) == (raw, StatusCode.GOOD), one


def test_two_bytes_share_a_register() -> None:
    high = replace(tag("state_high", ValueType.UINT8), address="hr:5.h")
    low = replace(tag("state_low", ValueType.INT8), index=1, address="hr:5.l")
    plant = Plant([high, low], 3)
    image = Image(plant, "d", [high, low])
    (request,) = requests([high, low])
    buffer = Buffer([high, low])
    plan = buffer.modbus_plan(request.fields())
    for k in range(50):
        now = T0 + k * SECOND
        registers = image.read(ModbusTable.HR, 5, 1, now)
        assert registers is not None
        buffer.push_registers(plan, registers, now)
        assert {at: value for at, _, value, _ in buffer.latest()} == {0: plant.raw(high, now), 1: plant.raw(low, now)}
