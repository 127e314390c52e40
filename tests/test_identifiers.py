"""Identifiers through the core's Python face: the published forms, and what each compares equal to."""

from __future__ import annotations

import pytest

from agent._native import Identifier


@pytest.mark.parametrize(
    ("raw", "scheme", "text"),
    [
        ("hdl:88.101.0042/001", "handle", "88.101.0042/001"),
        ("88.608.8889/a/b", "handle", "88.608.8889/a/b"),
        ("urn:oid:1.2.156.1", "oid", "urn:oid:1.2.156.1"),
        ("0173-1#02-AAB325#008", "irdi", "0173-1#02-AAB325#008"),
        ("MA.156.1003.1629/60.10000000.2/", "ma", "MA.156.1003.1629/60.10000000.2/"),
        ("nsu=http://vendor.com/UA/;s=Line1.Temp", "opcua", "nsu=http://vendor.com/UA/;s=Line1.Temp"),
        ("(01)09521234543213(21)12345", "gs1", "https://id.gs1.org/01/09521234543213/21/12345"),
    ],
)
def test_an_identifier_has_a_scheme_and_comes_back(raw: str, scheme: str, text: str) -> None:
    found = Identifier(raw)
    assert (found.scheme, found.text, str(found)) == (scheme, text, text)
    assert Identifier(str(found)) == found
    assert len({found, Identifier(raw)}) == 1


def test_the_prefix_has_no_case_and_the_suffix_has() -> None:
    assert Identifier("10.ABC/x") == Identifier("10.abc/x")
    assert Identifier("88.608.8889/EQ01") != Identifier("88.608.8889/eq01")
    assert Identifier("0173-1#02-AAB325#008").concept == Identifier("0173-1#02-AAB325#007").concept


def test_the_path_is_percent_encoded() -> None:
    assert Identifier("88.608.8889/EQ#01 泵").path == "88.608.8889/EQ%2301%20%E6%B3%B5"


@pytest.mark.parametrize(
    ("raw", "message"),
    [("88.608.8889/", "character 13: "), ("1.2.0156", "character 5: .*leading zero"), ("ns=2;s=x", "character 1: ")],
)
def test_what_is_wrong_is_said_with_its_place(raw: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Identifier(raw)
