"""The virtual plant is a pure function, within types and limits, and the judge of readings is strict."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent import config
from agent.model import StatusCode, Tag, Value, ValueType
from simulators.oracle import Oracle
from simulators.plant import ELEMENTS, INTEGER_RANGES, Plant
from simulators.registers import encode

T0 = 1_750_000_000_000_000_000
SECOND = 1_000_000_000
DEMO = Path(__file__).parent.parent / "configs" / "demo" / "plant.toml"
NAMES = ("temp", "count", "state", "word", "setpoint", "position", "alarm", "running", "x", "y", "z1", "z2")


def tag(name: str = "temp", kind: ValueType = ValueType.FLOAT32, device: str = "d", **more: object) -> Tag:
    return Tag(0, device, name, "hr:0", kind, f"id/{device}.{name}", **more)  # type: ignore[arg-type]


def every_kind() -> list[Tag]:
    return [tag(name, kind, device=kind.value, length=0) for kind in ValueType for name in NAMES]


def series(plant: Plant, one: Tag, count: int = 300) -> list[Value]:
    step = plant.step_ns(one)
    return [plant.value(one, T0 + k * step) for k in range(count)]


def test_equal_seeds_agree_in_any_order_and_other_seeds_do_not() -> None:
    tags = every_kind()
    forward, backward, other = Plant(tags, 7), Plant(reversed(tags), 7), Plant(tags, 8)
    times = [T0 + k * 333_000_000 for k in range(200)]
    for one in tags:
        expected = [forward.value(one, time_ns) for time_ns in times]
        assert [backward.value(one, time_ns) for time_ns in reversed(times)] == expected[::-1], one
        moved = replace(one, index=5, address="ir:9", identifier="elsewhere")
        assert [Plant([moved], 7).value(moved, time_ns) for time_ns in times[:5]] == expected[:5]
    assert any(series(forward, one) != series(other, one) for one in tags)


def test_values_stand_still_within_a_step() -> None:
    tags = every_kind()
    plant = Plant(tags, 7)
    for one in tags:
        step = plant.step_ns(one)
        assert step % 100 == 0, "OPC UA counts time in 100 ns"
        for k in range(T0 // step, T0 // step + 20):
            inside = {plant.value(one, k * step + rest) for rest in (0, 1, step // 2, step - 1)}
            assert len(inside) == 1


def test_every_signal_moves_and_keeps_its_type() -> None:
    tags = every_kind()
    plant = Plant(tags, 7)
    for one in tags:
        values = series(plant, one)
        assert len(set(values)) > 1, one
        if one.type.is_array:
            parts = [replace(one, name=f"{one.name}[{at}]", type=one.type.element) for at in range(ELEMENTS)]
            assert values == list(zip(*(series(Plant(parts, 7), part) for part in parts), strict=True))
        elif one.type in INTEGER_RANGES:
            low, high = INTEGER_RANGES[one.type]
            assert all(type(value) is int and low <= value <= high for value in values), one
        elif one.type is ValueType.FLOAT32:
            for value in values:
                assert isinstance(value, float)
                assert struct.unpack("<f", struct.pack("<f", value))[0] == value
        else:
            wanted = {ValueType.BOOL: bool, ValueType.FLOAT64: float, ValueType.STRING: str, ValueType.BYTES: bytes}[
                one.type
            ]
            assert {type(value) for value in values} == {wanted}


def test_wide_integers_are_beyond_what_a_float_can_hold() -> None:
    for kind in (ValueType.INT64, ValueType.UINT64):
        one = tag("total", kind)
        values = series(Plant([one], 7), one)
        assert any(isinstance(value, int) and int(float(value)) != value for value in values)


@pytest.mark.parametrize("kind", [kind for kind in ValueType if kind.is_number])
def test_values_stay_within_low_and_high(kind: ValueType) -> None:
    for low, high in ((3.0, 90.0), (0.1, 7.3), (-20.0, 20.0), (0.0, 1e15), (-1e300, 1e300)):
        for name in NAMES:
            one = tag(name, kind, low=low, high=high)
            values = series(Plant([one], 7), one, 100)
            assert all(isinstance(value, (int, float)) and low <= value <= high for value in values), one


@pytest.mark.parametrize("kind", [ValueType.INT16, ValueType.UINT8, ValueType.INT64, ValueType.FLOAT32])
@pytest.mark.parametrize(("scale", "offset"), [(0.1, None), (None, -40.0), (-0.5, 100.0), (0.001, 273.15)])
def test_a_scaled_tag_reads_as_raw_times_scale_plus_offset(
    kind: ValueType, scale: float | None, offset: float | None
) -> None:
    one = tag("pressure", kind, scale=scale, offset=offset, low=0.0, high=60.0)
    plant = Plant([one], 7)
    for k in range(100):
        time_ns = T0 + k * SECOND
        raw, value = plant.raw(one, time_ns), plant.value(one, time_ns)
        assert type(raw) is (float if kind is ValueType.FLOAT32 else int)
        assert value == float(raw) * (1.0 if scale is None else scale) + (offset or 0.0)
        assert type(value) is float
        if scale != 0.001 or kind in (ValueType.INT64, ValueType.FLOAT32):  # else too few bits: then the type decides
            assert 0 <= value <= 60


@pytest.mark.parametrize("length", [1, 2, 5, 8, 16, 40])
def test_strings_fit_their_registers(length: int) -> None:
    one = tag("batch", ValueType.STRING, length=length)
    values = series(Plant([one], 7), one)
    assert all(isinstance(value, str) and 1 <= len(value.encode()) <= length for value in values)
    assert all("\0" not in str(value) for value in values)


def test_some_strings_are_not_ascii() -> None:
    one = tag("batch", ValueType.STRING)
    assert {str(value).isascii() for value in series(Plant([one], 7), one)} == {True, False}


GOLDEN: dict[tuple[str, str], Value] = {
    ("bool", "temp"): True,
    ("bool", "count"): True,
    ("bool", "state"): False,
    ("bool", "x"): False,
    ("int8", "temp"): -46,
    ("int8", "count"): -38,
    ("int8", "state"): 7,
    ("int8", "x"): -52,
    ("int16", "temp"): 13672,
    ("int16", "count"): -17127,
    ("int16", "state"): 5,
    ("int16", "x"): 7844,
    ("int32", "temp"): -1076,
    ("int32", "count"): 183690330,
    ("int32", "state"): 1,
    ("int32", "x"): 39675,
    ("int64", "temp"): 3479784131456378640,
    ("int64", "count"): -2498791682501487097,
    ("int64", "state"): -2046823980225923652,
    ("int64", "x"): -4989443644963637040,
    ("uint8", "temp"): 61,
    ("uint8", "count"): 180,
    ("uint8", "state"): 9,
    ("uint8", "x"): 91,
    ("uint16", "temp"): 5328,
    ("uint16", "count"): 2247,
    ("uint16", "state"): 1,
    ("uint16", "x"): 3021,
    ("uint32", "temp"): 8127,
    ("uint32", "count"): 1682220231,
    ("uint32", "state"): 3,
    ("uint32", "x"): 199228,
    ("uint64", "temp"): 14821002220019676589,
    ("uint64", "count"): 6165978807020700566,
    ("uint64", "state"): 10525438713846272596,
    ("uint64", "x"): 11579048278287829132,
    ("float32", "temp"): 50.83000183105469,
    ("float32", "count"): 61.84000015258789,
    ("float32", "state"): 42.45000076293945,
    ("float32", "x"): 77.75,
    ("float64", "temp"): 19.29,
    ("float64", "count"): 28.69,
    ("float64", "state"): 40.29,
    ("float64", "x"): 96.88,
    ("string", "temp"): "Träger links B00740",
    ("string", "count"): "Gehäuse Ø40 B60291",
    ("string", "state"): "Стойка B B47331",
    ("string", "x"): "Flansch 12° B35341",
}
"""What the seed 42 gives at T0: another machine, another Python version and a later release must agree."""


def test_golden_values() -> None:
    tags = [one for one in every_kind() if (one.type, one.name) in GOLDEN]
    plant = Plant(tags, 42)
    assert {(one.device, one.name): plant.value(one, T0) for one in tags} == GOLDEN


def test_another_process_agrees() -> None:
    code = (
        "from agent import config; from simulators.plant import Plant; from pathlib import Path; import sys\n"
        "found = config.load(Path(sys.argv[1])); plant = Plant(found.tags, 3)\n"
        f"print(hash(0), [plant.value(tag, {T0}) for tag in found.tags])"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code, str(DEMO)],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(DEMO.parent.parent.parent), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


# How a reader without the agent would take a value out of registers, byte by byte, from the words of the contract.


def naive_bytes(registers: bytes, order: str) -> bytes:
    pairs = [registers[i : i + 2] for i in range(0, len(registers), 2)]
    if order in ("BADC", "DCBA"):
        pairs = [bytes([pair[1], pair[0]]) for pair in pairs]
    if order in ("CDAB", "DCBA"):
        pairs.reverse()
    return b"".join(pairs)


def naive_decode(registers: bytes, kind: ValueType, order: str) -> Value:
    if kind is ValueType.STRING:
        swapped = order in ("BADC", "DCBA")
        text = naive_bytes(registers, "BADC" if swapped else "ABCD")
        return text.split(b"\0")[0].decode()
    if kind is ValueType.BOOL:
        return registers != b"\0\0"
    if kind in (ValueType.INT8, ValueType.UINT8):
        return int.from_bytes(registers[1:2], "big", signed=kind is ValueType.INT8)
    straight = naive_bytes(registers, order)
    if kind is ValueType.FLOAT32:
        return float(struct.unpack(">f", straight)[0])
    if kind is ValueType.FLOAT64:
        return float(struct.unpack(">d", straight)[0])
    return int.from_bytes(straight, "big", signed=kind.value.startswith("int"))


@pytest.mark.parametrize("order", ["ABCD", "DCBA", "BADC", "CDAB"])
@pytest.mark.parametrize("kind", list(ValueType)[:12])
def test_registers_hold_what_the_plant_says(kind: ValueType, order: str) -> None:
    for name in NAMES:
        one = tag(name, kind, order=order, length=17 if kind is ValueType.STRING else 0)
        plant = Plant([one], 7)
        for k in range(40):
            raw = plant.raw(one, T0 + k * SECOND)
            registers = encode(one, raw)
            assert len(registers) % 2 == 0
            assert naive_decode(registers, kind, order) == raw


def test_the_orders_by_example() -> None:
    wide, one = tag("w", ValueType.UINT64), tag("n", ValueType.UINT32)
    for order, four, eight in (
        ("ABCD", "01020304", "0102030405060708"),
        ("DCBA", "04030201", "0807060504030201"),
        ("BADC", "02010403", "0201040306050807"),
        ("CDAB", "03040102", "0708050603040102"),
    ):
        assert encode(replace(one, order=order), 0x01020304).hex() == four
        assert encode(replace(wide, order=order), 0x0102030405060708).hex() == eight
    assert encode(tag("s", ValueType.INT8), -2).hex() == "fffe"
    assert encode(tag("s", ValueType.INT16, order="DCBA"), -2).hex() == "feff"
    assert encode(tag("s", ValueType.STRING, length=3), "abc").hex() == "61626300"
    assert encode(tag("s", ValueType.STRING, length=4, order="BADC"), "abc").hex() == "62610063"
    with pytest.raises(ValueError, match="3 bytes of text for a string of 2"):
        encode(tag("s", ValueType.STRING, length=2), "abc")


def test_the_demo_has_300_tags_of_every_type_that_registers_hold() -> None:
    found = config.load(DEMO)
    assert len(found.tags) == 300
    assert {one.type for one in found.tags} == set(list(ValueType)[:12])
    assert {one.order for one in found.tags} == {"ABCD", "DCBA", "BADC", "CDAB"}
    assert [device.protocol for device in found.devices] == ["modbus", "modbus", "opcua"]
    assert any(one.scaled for one in found.tags)
    plant = Plant(found.tags, 1)
    for one in found.tags:
        for value in series(plant, one, 50):
            if isinstance(value, (int, float)) and one.low is not None and one.high is not None:
                assert one.low <= value <= one.high, one


def _named(found: config.Config, device: str, name: str) -> Tag:
    return next(one for one in found.tags if (one.device, one.name) == (device, name))


def test_the_oracle_on_opcua_readings() -> None:
    found = config.load(DEMO)
    plant = Plant(found.tags, 5)
    oracle = Oracle(plant, found)
    temp = _named(found, "furnace", "Zone1.Temp")
    step = plant.step_ns(temp)
    value = plant.value(temp, T0)
    assert isinstance(value, float)
    assert not oracle.wrong(temp, T0, value, 0)
    assert oracle.wrong(temp, T0, value + 1e-9, 0)
    assert oracle.wrong(temp, T0, str(value), 0)
    assert oracle.wrong(temp, T0, None, 0)
    assert not oracle.wrong(temp, T0, None, StatusCode.BAD_COMMUNICATION_ERROR)
    changed = next(T0 + k * step for k in range(1, 100) if plant.value(temp, T0 + k * step) != value)
    assert oracle.wrong(temp, changed, value, 0)

    running = _named(found, "furnace", "Zone1.BurnerRunning")
    on = plant.value(running, T0)
    assert not oracle.wrong(running, T0, on, 0)
    assert oracle.wrong(running, T0, int(on is True), 0)
    assert oracle.wrong(running, T0, not on, 0)

    last = T0 + 20 * step
    naive = [
        T0 + k * step for k in range(1, 20) if plant.value(temp, T0 + k * step) != plant.value(temp, T0 + k * step - 1)
    ]
    assert oracle.expected_changes(temp, T0, last) == naive
    assert len(naive) > 10
    assert oracle.expected_changes(temp, T0, T0 + step) == []


def test_the_oracle_on_polled_readings() -> None:
    found = config.load(DEMO)
    plant = Plant(found.tags, 5)
    oracle = Oracle(plant, found)
    temp = _named(found, "press1", "die_temp_1")
    slack_ns = int(found.devices[0].timeout * SECOND / 2) + SECOND // 20
    shown = [plant.value(temp, T0 + k * plant.step_ns(temp)) for k in range(-400, 400)]
    assert not oracle.wrong(temp, T0, plant.value(temp, T0 + slack_ns), 0)
    assert not oracle.wrong(temp, T0, plant.value(temp, T0 - slack_ns), 0)
    near = {
        plant.value(temp, T0 + k * SECOND // 20) for k in range(-slack_ns * 20 // SECOND, slack_ns * 20 // SECOND + 1)
    }
    assert all(oracle.wrong(temp, T0, value, 0) for value in shown if value not in near)
    assert oracle.expected_changes(temp, T0, T0 + 10 * SECOND) == []


def test_two_tags_at_one_place_read_one_value() -> None:
    raw = Tag(0, "press", "raw", "hr:7", ValueType.INT16, "id/raw", low=-100, high=100)
    scaled = replace(raw, index=1, name="scaled", identifier="id/scaled", scale=0.5, offset=3.0)
    elsewhere = replace(raw, index=2, device="other")
    plant = Plant([raw, scaled, elsewhere], 5)
    plant._share([raw, scaled, elsewhere])  # as `of` does for a config
    for at in range(T0, T0 + 60 * 10**9, 10**9):
        value = plant.raw(raw, at)
        assert isinstance(value, int)
        assert plant.raw(scaled, at) == value
        assert plant.value(scaled, at) == value * 0.5 + 3.0
    assert any(plant.raw(elsewhere, at) != plant.raw(raw, at) for at in range(T0, T0 + 60 * 10**9, 10**9))
