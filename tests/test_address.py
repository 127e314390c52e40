"""Addresses: what they may be, and what the refusals tell people to write."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.address import ModbusAddress, ModbusTable, NodeAddress, registers
from agent.encoding import Form
from agent.model import ValueType


@pytest.mark.parametrize(
    ("text", "table", "number", "bit"),
    [
        ("hr:100", ModbusTable.HR, 100, None),
        ("ir:8", ModbusTable.IR, 8, None),
        ("co:3", ModbusTable.CO, 3, None),
        ("di:0", ModbusTable.DI, 0, None),
        ("hr:100.3", ModbusTable.HR, 100, 3),
        ("ir:65535.15", ModbusTable.IR, 65535, 15),
    ],
)
def test_modbus_addresses_and_back(text: str, table: ModbusTable, number: int, bit: int | None) -> None:
    address = ModbusAddress.parse(text)
    assert (address.table, address.number, address.bit) == (table, number, bit)
    assert address.text == text
    assert table.bits == (text[:2] in ("co", "di"))


@pytest.mark.parametrize(
    ("text", "canonical", "digits"),
    [
        ("40101", "hr:100", 5), ("400101", "hr:100", 6), ("30001", "ir:0", 5), ("10001", "di:0", 5),
        ("00001", "co:0", 5), ("09999", "co:9998", 5), ("49999", "hr:9998", 5), ("465536", "hr:65535", 6),
        ("000001", "co:0", 6), ("165536", "di:65535", 6), ("40101.3", "hr:100.3", 5), ("400101.15", "hr:100.15", 6),
        ("40101.h", "hr:100.h", 5), ("hr:7.L", "hr:7.l", 0), ("IR:7.H", "ir:7.h", 0),
    ],
)  # fmt: skip
def test_numbers_of_manuals_and_bytes(text: str, canonical: str, digits: int) -> None:
    address = ModbusAddress.parse(text)
    assert (address.text, address.digits) == (canonical, digits)
    assert ModbusAddress.parse(canonical) == address


def test_modbus_case_and_leading_zeros_have_one_canonical_form() -> None:
    assert ModbusAddress.parse("HR:0100.03").text == "hr:100.3"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "is not a Modbus address", "write hr:100"),
        ("temp", "is not a Modbus address", "write hr:100"),
        ("xx:5", "'xx' is not a Modbus table", "write hr:100"),
        ("hr:65536", "past the last address", "0 to 65535"),
        ("hr:-1", "is not a Modbus address", "write hr:100"),
        ("hr:1.16", "a bit that a register does not have", "0 to 15"),
        ("co:3.0", "a part of what is one bit", "write co:3"),
        ("di:3.h", "a part of what is one bit", "write di:3"),
        ("hr: 1", "is not a Modbus address", "write hr:100"),
        ("hr:٣", "is not a Modbus address", "write hr:100"),
        ("4", "a spreadsheet drops the zeros", "write co:3 if it is coil 4"),
        ("101", "a spreadsheet drops the zeros", "write co:100 if it is coil 101"),
        ("0", "no digit for its table", "40101"),
        ("40000", "no number of a manual", "write hr:100"),
        ("50001", "no number of a manual", "write hr:100"),
        ("20001", "no number of a manual", "write hr:100"),
        ("465537", "no number of a manual", "write hr:100"),
        ("4000001", "no number of a manual", "write hr:100"),
        ("40101.1", "may have been .10", "write hr:100.1 or hr:100.10"),
        ("40101.16", "a bit that a register does not have", "0 to 15"),
        ("10001.2", "a part of what is one bit", "write di:0"),
        ("hr:1.x", "is not a Modbus address", "write hr:100"),
    ],
)
def test_what_is_no_modbus_address_says_what_to_write(text: str, message: str, hint: str) -> None:
    with pytest.raises(ValueError) as refused:
        ModbusAddress.parse(text)
    wrong, _, write = str(refused.value).partition("; ")
    assert message in wrong
    assert hint in write


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("nsu=urn:plant;s=Furnace.Temp", NodeAddress("urn:plant", "s", "Furnace.Temp")),
        ("ns=2;i=7", NodeAddress(2, "i", 7)),
        ("i=2258", NodeAddress(0, "i", 2258)),
        ("ns=3;s=a;b=c", NodeAddress(3, "s", "a;b=c")),
        ("nsu=urn:plant;s=Machine#Position.X", NodeAddress("urn:plant", "s", "Machine", "Position.X")),
        ("i=2256#State", NodeAddress(0, "i", 2256, "State")),
        ("ns=1;s=press ##7", NodeAddress(1, "s", "press #7")),
        ("ns=1;s=press ##7#Speed", NodeAddress(1, "s", "press #7", "Speed")),
        ("nsu=http://x/a%3Bb%25c;i=1", NodeAddress("http://x/a;b%c", "i", 1)),
        (
            "ns=1;g=09087e75-8e5e-499b-954f-f2a9603db28a",
            NodeAddress(1, "g", UUID("09087e75-8e5e-499b-954f-f2a9603db28a")),
        ),
        ("ns=1;b=AQI=", NodeAddress(1, "b", b"\x01\x02")),
    ],
)
def test_node_addresses_and_back(text: str, address: NodeAddress) -> None:
    assert NodeAddress.parse(text) == address
    assert address.text == text
    assert NodeAddress.parse(address.text) == address


def test_namespace_zero_is_left_out() -> None:
    assert NodeAddress.parse("ns=0;i=2258").text == "i=2258"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not an OPC UA node id"),
        ("Furnace.Temp", "is not an OPC UA node id"),
        ("ns=2", "is not an OPC UA node id"),
        ("svr=1;ns=2;i=3", "is not an OPC UA node id"),
        ("nsu=;s=a", "an empty namespace URI"),
        ("ns=65536;i=1", "is not a namespace index"),
        ("ns=x;i=1", "is not a namespace index"),
        ("i=4294967296", "is not a numeric node id"),
        ("ns=2;s=", "an empty key"),
        ("g=123", "is not a GUID"),
        ("b=%%", "is not base64"),
        ("b=é", "is not base64"),
        ("s=" + "x" * 5000, "5002 characters"),
    ],
)
def test_what_is_no_node_says_what_to_write(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        NodeAddress.parse(text)
    wrong, _, write = str(refused.value).rpartition("; write ")
    assert message in wrong
    assert write


@given(
    st.text(max_size=40) | st.from_regex(r"(hr|co|ns=2;i|s|b|g|nsu=a;s|4|0)[:=.0][0-9a-fhl.;=%-]{0,20}", fullmatch=True)
)
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for kind in (ModbusAddress, NodeAddress):
        try:
            found = kind.parse(text)
        except ValueError as refused:
            message = str(refused)
        else:
            message = "; write "
            assert kind.parse(found.text) == found
        assert "; write " in message


def test_registers_of_every_type() -> None:
    widths = {kind.value: registers(kind, 0) for kind in ValueType if kind.is_number or kind is ValueType.BOOL}
    assert widths == {
        "bool": 1, "int8": 1, "uint8": 1, "int16": 1, "uint16": 1, "int32": 2, "uint32": 2, "float32": 2,
        "int64": 4, "uint64": 4, "float64": 4,
    }  # fmt: skip
    assert {form.value: registers(form.reads, 0, form) for form in Form} == {
        "float16": 1, "bcd16": 1, "bcd32": 2, "bcd64": 4, "datetime[unix32]": 2, "datetime[unix64]": 4,
        "datetime[unix64ms]": 4, "datetime[cp56]": 4, "datetime[ymdhms]": 6, "datetime[ymdhmsms]": 7,
        "datetime[bcd]": 3, "datetime[s7]": 4,
    }  # fmt: skip
    assert [registers(ValueType.STRING, length) for length in (1, 2, 3, 250)] == [1, 1, 2, 125]
