"""What a device's registers become: every type, order and form, from a tag list's cells to the readings.

The orders and types that libmodbus knows are compared with its own conversions (tests/peers/libmodbus_values.c).
"""

from __future__ import annotations

import math
import struct
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import taglist
from agent._native import Buffer
from agent.address import ORDERS
from agent.collectors.requests import requests
from agent.config import ModbusDevice, load
from agent.encoding import Form, sentinels
from agent.model import StatusCode, Tag, Value, ValueType
from tests.peers.process import PeerMissing
from tests.test_config import GOOD, write

LIBMODBUS_VALUES = Path(__file__).parent.parent / "target" / "peers" / "libmodbus_values"
NOW = 1_750_000_000_000_000_000
MOMENT = 1_709_251_198_765_000_000
"""2024-02-29 23:59:58.765 UTC."""
SECOND = MOMENT // 10**9 * 10**9
BAD_SENSOR, BAD_DECODING = StatusCode.BAD_SENSOR_FAILURE, StatusCode.BAD_DECODING_ERROR


def tag(address: str, kind: ValueType, **options: Any) -> Tag:
    return Tag(0, "d", "t", address, kind, "88.1/t", **options)


def read(tags: list[Tag], registers: bytes) -> list[tuple[Value, int]]:
    """The values and qualities of the tags, of which one request has all."""
    tags = [replace(each, index=index) for index, each in enumerate(tags)]
    buffer = Buffer(tags)
    (request,) = requests(tags)
    plan = buffer.modbus_plan(request.fields(), bits=request.bits)
    buffer.push_registers(plan, registers, NOW)
    return [(value, quality) for _, _, value, quality in buffer.latest()]


def bits_of(kind: ValueType, value: Value) -> int:
    """A value's own bits. A NaN's payload does not survive Python's float32, so that every NaN is the same here."""
    if kind is ValueType.FLOAT32:
        assert isinstance(value, float)
        return -1 if math.isnan(value) else int(struct.pack(">f", value).hex(), 16)
    width = int(kind.value.lstrip("uint"))
    assert isinstance(value, int)
    return value & ((1 << width) - 1)


def test_every_order_as_libmodbus_converts_it() -> None:
    if not LIBMODBUS_VALUES.exists():
        raise PeerMissing("the program with libmodbus's conversions")
    lines = subprocess.run([LIBMODBUS_VALUES], capture_output=True, text=True, check=True, timeout=20).stdout.split(
        "\n"
    )
    seen: dict[str, int] = {}
    for line in filter(None, lines[1:]):
        word, order, wire, expected = line.split(" ")
        registers = bytes.fromhex(wire)
        seen[f"{word} {order}"] = seen.get(f"{word} {order}", 0) + 1
        if word == "coils":
            coils = [tag(f"co:{at}", ValueType.BOOL) for at in range(8)]
            assert [value for value, _ in read(coils, registers)] == [digit == "1" for digit in expected], line
        elif word in ("high", "low"):
            for kind in (ValueType.INT8, ValueType.UINT8):
                ((value, _),) = read([tag(f"hr:0.{word[0]}", kind, order="DCBA")], registers)
                assert bits_of(kind, value) == int(expected, 16), line
        else:
            kinds = [ValueType(word)] if word == "float32" else [ValueType(f"u{word.lstrip('u')}")]
            if word.startswith("int"):
                kinds.append(ValueType(word))
            for kind in kinds:
                ((value, quality),) = read([tag("hr:0", kind, order=order)], registers)
                (wanted,) = struct.unpack(">f", bytes.fromhex(expected)) if word == "float32" else (0.0,)
                assert quality == 0
                assert bits_of(kind, value) == (-1 if math.isnan(wanted) else int(expected, 16)), line
            if word == "int64":
                ((value, _),) = read([tag("hr:0", ValueType.FLOAT64, order=order)], registers)
                assert struct.pack(">d", value) == bytes.fromhex(expected) or math.isnan(float(str(value))), line
    assert all(count > 50 for count in seen.values())
    assert len(seen) == 4 * 4 + 3


def ordered(number: bytes, order: str) -> bytes:
    """Big-endian bytes as a device of this order sends them."""
    pairs = [number[at : at + 2] for at in range(0, len(number), 2)]
    if order in ("DCBA", "CDAB"):
        pairs.reverse()
    return b"".join(pair[::-1] if order in ("DCBA", "BADC") else pair for pair in pairs)


@pytest.mark.parametrize("order", ["ABCD", "DCBA", "BADC", "CDAB"])
@pytest.mark.parametrize(
    ("form", "registers", "value"),
    [
        (Form.FLOAT16, "3c01", 1.0009765625),
        (Form.FLOAT16, "fbff", -65504.0),
        (Form.FLOAT16, "0001", 2.0**-24),
        (Form.FLOAT16, "fc00", -math.inf),
        (Form.BCD16, "1234", 1234),
        (Form.BCD32, "98765432", 98765432),
        (Form.BCD64, "1234567890123456", 1234567890123456),
        (Form.UNIX32, f"{SECOND // 10**9:08x}", SECOND),
        (Form.UNIX32, "ffffffff", (2**32 - 1) * 10**9),
        (Form.UNIX64, f"{SECOND // 10**9:016x}", SECOND),
        (Form.UNIX64_MS, f"{MOMENT // 10**6:016x}", MOMENT),
        (Form.CP56, "0018029d173be58d", MOMENT),
        (Form.BCD, "240229235958", SECOND),
        (Form.S7, "2402292359587655", MOMENT),
    ],
)
def test_forms_in_every_order(form: Form, registers: str, value: Value, order: str) -> None:
    wire = ordered(bytes.fromhex(registers), order)
    assert read([tag("hr:9", form.reads, form=form, order=order)], wire) == [(value, 0)]


@pytest.mark.parametrize(
    ("form", "words", "value"),
    [
        (Form.YMDHMS, (2024, 2, 29, 23, 59, 58), SECOND),
        (Form.YMDHMS, (24, 2, 29, 23, 59, 58), SECOND),
        (Form.YMDHMS_MS, (2024, 2, 29, 23, 59, 58, 765), MOMENT),
    ],
)
def test_a_register_for_each_part_of_a_time(form: Form, words: tuple[int, ...], value: int) -> None:
    for order, letter in (("ABCD", ">"), ("BADC", "<")):
        wire = struct.pack(f"{letter}{len(words)}H", *words)
        assert read([tag("hr:9", ValueType.INT64, form=form, order=order)], wire) == [(value, 0)]


@given(st.integers(946_684_800_000, 3_786_825_599_999))
def test_any_moment_in_any_clock(since_ms: int) -> None:
    ns = since_ms * 10**6
    moment = datetime.fromtimestamp(since_ms // 1000, UTC).replace(microsecond=since_ms % 1000 * 1000)
    ms = moment.second * 1000 + moment.microsecond // 1000
    year = moment.year - 2000
    cp56 = bytes([0, year, moment.month, moment.day, moment.hour, moment.minute, ms >> 8, ms & 255])
    s7 = bytes.fromhex(f"{moment:%y%m%d%H%M%S}{moment.microsecond // 1000:03d}7")
    words = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    clocks = [Form.CP56, Form.S7, Form.UNIX64_MS, Form.YMDHMS]
    tags, at = [], 0
    for form in clocks:
        tags.append(tag(f"hr:{at}", ValueType.INT64, form=form))
        at += form.registers
    wire = cp56 + s7 + struct.pack(">q6H", ns // 10**6, *words)
    assert read(tags, wire) == [(ns, 0), (ns, 0), (ns, 0), (ns // 10**9 * 10**9, 0)]


@pytest.mark.parametrize(
    ("form", "registers"),
    [
        (Form.BCD16, "123a"),
        (Form.BCD, "230229000000"),
        (Form.BCD, "000000000000"),
        (Form.S7, "24022923595876f5"),
        (Form.CP56, "0018001d173be58d"),
        (Form.YMDHMS, "ffffffffffffffffffffffff"),
        (Form.UNIX64, "7fffffffffffffff"),
    ],
)
def test_what_is_no_number_and_no_moment_is_bad_without_a_value(form: Form, registers: str) -> None:
    assert read([tag("hr:0", form.reads, form=form)], bytes.fromhex(registers)) == [(None, BAD_DECODING)]


def test_a_clock_that_calls_itself_invalid() -> None:
    assert read([tag("hr:0", ValueType.INT64, form=Form.CP56)], bytes.fromhex("0018021d17bbe58d")) == [
        (None, BAD_SENSOR)
    ]


@pytest.mark.parametrize(
    ("kind", "form", "cell", "bad", "good"),
    [
        ("int16", "", "0x7FFF|-32768", ["7fff", "8000"], ["7ffe", "ffff"]),
        ("uint16", "", "65535", ["ffff"], ["7fff"]),
        ("int32", "", "-1", ["ffffffff"], ["0000ffff"]),
        ("uint32", "", "0xffffffff | 0", ["ffffffff", "00000000"], ["00000001"]),
        ("int64", "", "0x8000000000000000", ["8000000000000000"], ["0000000000000000"]),
        ("float32", "", "NaN", ["7fc00000", "ffc00001", "7f800001"], ["7f800000", "00000000"]),
        ("float32", "", "-9999", ["c61c3c00"], ["461c3c00"]),
        ("float32", "", "0", ["00000000", "80000000"], ["00000001"]),
        ("float32", "", "0x7FC00000", ["7fc00000"], ["7fc00001"]),
        ("float64", "", "nan|1e30", ["7ff8000000000000", "46293e5939a08cea"], ["3ff0000000000000"]),
        ("float32", "float16", "NaN|0x7bff", ["7e00", "7bff"], ["7c00"]),
        ("uint16", "bcd16", "0xFFFF|9999", ["ffff", "9999"], ["9998"]),
        ("int64", "datetime[unix32]", "0|0xFFFFFFFF", ["00000000", "ffffffff"], ["00000001"]),
        ("int64", "datetime[cp56]", "0x0", ["0000000000000000"], ["0018029d173be58d"]),
    ],
)
def test_sentinels_are_bad_whatever_the_scale(kind: str, form: str, cell: str, bad: list[str], good: list[str]) -> None:
    one = tag("hr:0", ValueType(kind), form=form, invalid=cell)
    scaled = one if form.startswith("datetime") else replace(one, scale=0.1, offset=-40.0)
    for each in (one, scaled, replace(one, order="CDAB")):
        for registers in bad:
            wire = ordered(bytes.fromhex(registers), each.order)
            assert read([each], wire) == [(None, BAD_SENSOR)], (registers, each)
        for registers in good:
            ((value, quality),) = read([each], ordered(bytes.fromhex(registers), each.order))
            assert (value is not None, quality) == (True, 0), (registers, each)


def test_sentinels_of_bytes() -> None:
    tags = [tag("hr:0.h", ValueType.INT8, invalid="-128"), tag("hr:0.l", ValueType.UINT8, invalid="0xFF")]
    assert read(tags, b"\x80\xff") == [(None, BAD_SENSOR), (None, BAD_SENSOR)]
    assert read(tags, b"\x7f\x80") == [(127, 0), (128, 0)]


@given(st.text(max_size=20) | st.from_regex(r"[-+0-9a-fxNn.|E ]{0,24}", fullmatch=True), st.sampled_from(ValueType))
def test_any_invalid_cell_is_taken_or_says_what_to_write(text: str, kind: ValueType) -> None:
    words = [("", kind), *((form, form.reads) for form in Form)]
    for form, reads in words:
        try:
            message, patterns = "; write ", sentinels(text, reads, form).patterns
        except ValueError as refused:
            message, patterns = str(refused), ()
        assert "; write " in message
        assert all(0 <= pattern < 2**64 for pattern in patterns)


def test_touching_values_of_one_type_and_of_many() -> None:
    kinds = [ValueType.FLOAT32] * 5 + [ValueType.INT16] * 3 + [ValueType.FLOAT32, ValueType.UINT32, ValueType.UINT32]
    kinds += [ValueType.FLOAT64, ValueType.FLOAT64, ValueType.INT64, ValueType.INT32, ValueType.INT32]
    letters = {
        ValueType.FLOAT32: "f", ValueType.INT16: "h", ValueType.UINT32: "I", ValueType.FLOAT64: "d",
        ValueType.INT64: "q", ValueType.INT32: "i",
    }  # fmt: skip
    tags, at = [], 0
    for kind in kinds:
        tags.append(tag(f"ir:{at}", kind))
        at += {"h": 1, "d": 4, "q": 4}.get(letters[kind], 2)
    values: list[Value] = [-1.5 * n if letters[kind] in "fd" else 7 * n + 1 for n, kind in enumerate(kinds)]
    wire = struct.pack(">" + "".join(letters[kind] for kind in kinds), *values)
    assert read(tags, wire) == [(value, 0) for value in values]
    marked = [replace(each, invalid="0x7FC00000" if letters[each.type] == "f" else "") for each in tags]
    assert read(marked, wire) == [(value, 0) for value in values]


def test_the_names_of_orders_in_a_config(tmp_path: Path) -> None:
    toml = GOOD.replace("unit = 1", 'unit = 1\norder = "ghefcdab"')
    press = "name,address,type,order\na,hr:1,float64,\nb,hr:5,float64,BADCFEHG\nc,hr:9,uint16,BA\nd,hr:10,int32,dcba\n"
    config = load(write(tmp_path, toml, press))
    assert isinstance(config.devices[0], ModbusDevice)
    assert [each.order for each in config.devices[0].tags] == ["CDAB", "BADC", "BADC", "DCBA"]
    assert set(ORDERS.values()) == {"ABCD", "DCBA", "BADC", "CDAB"}


def test_a_tag_list_with_everything(tmp_path: Path) -> None:
    rows = (
        "name,address,type,scale,invalid,poll,together,alone\n"
        "a,40101,float16,,NaN,,,\n"
        "b,hr:101.h,uint8,,0xFF|0xFE,10s,,no\n"
        "c,30001,bcd32,0.01,0xFFFFFFFF,,pair,\n"
        "d,30003,bcd32,,,,pair,\n"
        "e,hr:300,datetime[cp56],,,,,yes\n"
    )
    (tmp_path / "x.csv").write_text(rows)
    found = taglist.read(tmp_path / "x.csv", "modbus")
    assert not found.problems
    config = load(write(tmp_path, press=rows))
    a, b, c, d, e = config.devices[0].tags
    assert (a.address, a.type, a.form, a.invalid) == ("hr:100", ValueType.FLOAT32, "float16", "NaN")
    assert (b.address, b.type, b.invalid, b.poll, b.alone) == ("hr:101.h", ValueType.UINT8, "0xFF|0xFE", 10.0, False)
    assert (c.type, c.reading_type, c.form, c.together) == (ValueType.UINT32, ValueType.FLOAT64, "bcd32", "pair")
    assert (d.together, e.alone, e.type, e.form) == ("pair", True, ValueType.INT64, "datetime[cp56]")
