"""A tag list that has another type than the device is told of, once, by name."""

from __future__ import annotations

import logging

import pytest

from agent._native import Buffer
from agent.misfits import Misfits
from agent.model import StatusCode, Tag, ValueType


def tag(index: int, name: str, kind: ValueType) -> Tag:
    return Tag(index, "furnace", name, f"ns=2;i={index}", kind, f"88.118.8/{name}")


def test_a_wrong_type_is_told_once_by_name_and_when_it_is_right_again(caplog: pytest.LogCaptureFixture) -> None:
    tags = [tag(0, "temp", ValueType.STRING), tag(1, "count", ValueType.INT32), tag(2, "sick", ValueType.INT32)]
    buffer = Buffer(tags)
    misfits = Misfits(lambda: tags, buffer)
    caplog.set_level(logging.INFO, "headrace.agent")
    misfits.look()
    buffer.push([(0, 1, 7.5, 0), (1, 1, 5, 0)])
    misfits.look()
    buffer.push([(0, 2, 7.5, 0), (1, 2, 6, 0)])
    misfits.look()
    (once,) = caplog.records
    assert once.getMessage().startswith("not of the type that the tag list says: furnace.temp (string); kept without")
    buffer.push([(0, 3, "text", 0)])
    misfits.look()
    misfits.look()
    assert [record.getMessage() for record in caplog.records][1:] == ["of the right type again: furnace.temp"]


def test_a_device_s_own_status_is_no_wrong_type(caplog: pytest.LogCaptureFixture) -> None:
    tags = [tag(0, "sick", ValueType.INT32)]
    buffer = Buffer(tags)
    buffer.push([(0, 1, None, StatusCode.BAD_TYPE_MISMATCH)])
    Misfits(lambda: tags, buffer).look()
    assert caplog.records == []


def test_many_wrong_types_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    tags = [tag(index, f"t{index}", ValueType.BOOL) for index in range(100)]
    buffer = Buffer(tags)
    buffer.push([(index, 1, "x", 0) for index in range(100)])
    Misfits(lambda: tags, buffer).look()
    (record,) = caplog.records
    assert "furnace.t4 (bool) and 95 more;" in record.getMessage()
    assert vars(record)["event"] == "type_mismatch"
