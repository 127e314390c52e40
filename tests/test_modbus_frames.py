"""Frames come out whole however they are cut; nothing that is not one ever does."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.collectors.frames import Discard, Frame, Framer, Malformed, Question, framer, read_pdu
from agent.endpoint import Framing
from tests.hostile import wrap

REGISTERS = st.integers(1, 125).flatmap(lambda n: st.binary(min_size=2 * n, max_size=2 * n))
READS = st.builds(lambda f, v: bytes([f, len(v)]) + v, st.sampled_from([1, 2, 3, 4]), REGISTERS)
REFUSALS = st.builds(lambda f, c: bytes([f | 0x80, c]), st.sampled_from([1, 2, 3, 4]), st.integers(1, 11))
FRAMES = st.lists(
    st.builds(Frame, st.integers(0, 65535), st.integers(0, 255), st.one_of(READS, REFUSALS)), min_size=1, max_size=4
)
CUTS = st.lists(st.integers(0, 2000), max_size=12)


def chunks(stream: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    return [stream[a:b] for a, b in pairwise(places)]


def all_of(line: Framer, stream: bytes, cuts: list[int]) -> list[Frame | Malformed]:
    return [found for chunk in chunks(stream, cuts) for found in line.feed(chunk)]


def sent(framing: Framing, frames: list[Frame]) -> tuple[bytes, list[Frame]]:
    stream = b"".join(wrap(framing, *frame) for frame in frames)
    return stream, [frame if framing is Framing.MBAP else frame._replace(transaction=0) for frame in frames]


@pytest.mark.parametrize("framing", Framing)
@given(frames=FRAMES, cuts=CUTS)
def test_every_chunking_gives_the_same_frames(framing: Framing, frames: list[Frame], cuts: list[int]) -> None:
    stream, expected = sent(framing, frames)
    line = framer(framing)
    assert all_of(line, stream, cuts) == expected
    assert line.pending == 0


@pytest.mark.parametrize("framing", Framing)
@given(frames=FRAMES, garbage=st.binary(min_size=1, max_size=600), cuts=CUTS)
def test_garbage_is_the_same_garbage_in_every_chunking(
    framing: Framing, frames: list[Frame], garbage: bytes, cuts: list[int]
) -> None:
    stream, expected = sent(framing, frames)
    whole, cut = framer(framing), framer(framing)
    found = whole.feed(stream + garbage + stream)
    assert all_of(cut, stream + garbage + stream, cuts) == found
    assert found[: len(frames)] == expected
    assert (cut.pending, all(isinstance(each, Frame) for each in found[:-1])) == (whole.pending, True)
    assert whole.pending < 600
    # After a silence everything is as at the beginning.
    whole.reset()
    assert whole.feed(stream) == expected


@pytest.mark.parametrize("framing", [Framing.RTU, Framing.ASCII])
@given(values=REGISTERS, at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_no_changed_serial_frame_passes(framing: Framing, values: bytes, at: int, flip: int) -> None:
    stream, _ = sent(framing, [Frame(0, 7, bytes([3, len(values)]) + values)])
    at %= len(stream)
    changed = stream[:at] + bytes([stream[at] ^ flip]) + stream[at + 1 :]
    if framing is Framing.ASCII and changed.upper() == stream:
        return  # the same digit in lower case
    question = Question(7, read_pdu(3, 100, len(values) // 2), len(values))
    line = framer(framing)
    for found in line.feed(changed):
        assert isinstance(found, Malformed) or isinstance(question.judge(found), Discard)


@given(values=REGISTERS, other=st.one_of(READS, REFUSALS), unit=st.integers(0, 255))
def test_only_the_right_answer_is_one(values: bytes, other: bytes, unit: int) -> None:
    question = Question(7, read_pdu(3, 100, len(values) // 2), len(values))
    right = bytes([3, len(values)]) + values
    assert question.judge(Frame(0, 7, right)) == values
    assert question.judge(Frame(0, 7, b"\x83\x02")) == 2
    assert question.judge(Frame(0, 7, right[:-1])) is Discard.SHORT
    assert question.judge(Frame(0, 7, right + b"\0")) is Discard.LONG
    assert question.judge(Frame(0, 7, bytes([3, (len(values) + 1) % 256]) + values)) is Discard.WRONG
    verdict = question.judge(Frame(0, unit, other))
    if unit != 7:
        assert verdict is Discard.FOREIGN
        assert question.judge(Frame(0, unit, right), any_unit=True) == values
    elif other[0] not in (3, 0x83):
        assert verdict is Discard.WRONG
    elif len(other) != len(right):
        assert not isinstance(verdict, bytes)


def test_the_frames_of_the_specification() -> None:
    # MODBUS Application Protocol V1.1b3, 6.3, and MODBUS over Serial Line V1.02, 6.2.2: read 108 to 110.
    assert read_pdu(3, 107, 3) == bytes.fromhex("03006B0003")
    assert framer(Framing.MBAP).wrap(17, read_pdu(3, 107, 3), 0x1501) == bytes.fromhex("15010000000611 03006B0003")
    assert framer(Framing.RTU).wrap(17, read_pdu(3, 107, 3), 0) == bytes.fromhex("1103006B00037687")
    assert framer(Framing.ASCII).wrap(17, read_pdu(3, 107, 3), 0) == b":1103006B00037E\r\n"
    answer = bytes.fromhex("1103 06 AE41 5652 4340 49AD")
    assert framer(Framing.RTU).feed(answer) == [Frame(0, 17, bytes.fromhex("0306AE4156524340"))]


def test_device_identification_over_rtu_is_found_without_a_timer() -> None:
    pdu = bytes.fromhex("2B0E010100 00 02 00 03 414243 01 02 4445".replace(" ", ""))
    frame = wrap(Framing.RTU, 0, 9, pdu)
    line = framer(Framing.RTU)
    assert [found for byte in frame for found in line.feed(bytes([byte]))] == [Frame(0, 9, pdu)]


@pytest.mark.parametrize(("function", "count"), [(3, 126), (3, 0), (1, 2001), (4, -1)])
def test_what_no_device_may_be_asked_is_refused(function: int, count: int) -> None:
    with pytest.raises(ValueError):
        read_pdu(function, 0, count)
