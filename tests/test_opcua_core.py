"""The core's `cut`, `opcua_renewed` and `opcua_resumed`: which readings a block has, and what a repeated
value becomes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from agent import _native
from agent.model import Tag, ValueType

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000_000


def buffer(count: int = 1) -> _native.Buffer:
    return _native.Buffer([Tag(at, "d", f"t{at}", "i=1", ValueType.INT32, f"x{at}") for at in range(count)])


def published(value: int, second: int, handle: int = 0) -> bytes:
    answer = ua.PublishResponse()
    answer.Parameters.NotificationMessage.SequenceNumber = ua.UInt32(1)
    stamp: Any = EPOCH + timedelta(seconds=second)
    found = ua.DataValue(ua.Variant(value, ua.VariantType.Int32), SourceTimestamp=stamp)
    item = ua.MonitoredItemNotification(ua.UInt32(handle), found)
    answer.Parameters.NotificationMessage.NotificationData = [ua.DataChangeNotification([item])]
    return struct_to_binary(answer)


def rows(found: _native.Buffer) -> list[tuple[int, int, object, int]]:
    block = found.seal()
    return [] if block is None else list(_native.decode(block.data).rows())


def test_a_block_has_what_was_cut_and_nothing_that_came_after() -> None:
    found = buffer()
    assert not found.cut()
    found.push([(0, 1, 10, 0)])
    assert found.cut()
    found.push([(0, 2, 20, 0)])
    assert found.cut()  # what was set aside is not sealed yet: nothing comes to it
    assert rows(found) == [(0, 1, 10, 0)]
    assert rows(found) == [(0, 2, 20, 0)]
    assert rows(found) == []


@pytest.mark.parametrize(
    ("second", "kept_at"),
    [(5, 100), (4, 100), (6, 6), (9, 100)],
    ids=["at the last message", "before it", "after it", "the tag's last reading itself"],
)
def test_a_first_value_that_was_read_before_holds_now(second: int, kept_at: int) -> None:
    found = buffer()
    subscription = found.opcua_subscription([(0, 0)])
    found.push_publish(subscription, published(1, 9), 50 * SECOND)
    found.opcua_renewed(subscription, 5 * SECOND)
    found.push_publish(subscription, published(2, second), 100 * SECOND)
    found.push_publish(subscription, published(3, second), 110 * SECOND)
    assert rows(found)[1:] == [(0, kept_at * SECOND, 2, 0), (0, second * SECOND, 3, 0)]


@pytest.mark.parametrize(
    ("value", "second", "repeated"),
    [(1, 9, 1), (2, 9, 0), (1, 10, 0)],
    ids=["the same", "another value", "another time"],
)
def test_the_last_reading_once_more_after_a_resume_is_left_out(value: int, second: int, repeated: int) -> None:
    found = buffer()
    subscription = found.opcua_subscription([(0, 0)])
    found.push_publish(subscription, published(1, 9), 50 * SECOND)
    found.opcua_resumed(subscription)
    again = found.push_publish(subscription, published(value, second), 100 * SECOND)
    assert (again.repeated, again.readings) == (repeated, 1 - repeated)
    # Only the first one: a server that goes on repeating itself is another fault, and not hidden.
    found.push_publish(subscription, published(value, second), 110 * SECOND)
    assert len(rows(found)) == 3 - repeated


def test_a_subscription_that_is_not_there_can_not_be_renewed() -> None:
    with pytest.raises(IndexError):
        buffer().opcua_renewed(0, 0)
    with pytest.raises(IndexError):
        buffer().opcua_resumed(0)
