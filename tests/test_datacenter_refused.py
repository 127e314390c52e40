"""What the data center can't store: it is kept as far as there is room, and its agent is told."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agent import _native
from agent.wire import ROOT, Catalog, CatalogTag, Receipt, State, epoch_of
from datacenter.quarantine import Quarantine
from tests.datacenter_rig import AGENT, BEGIN, TAGS, Rig, block, gap

HIGHEST = 2**63 - 1


def test_the_quarantine_is_bounded_in_bytes(tmp_path: Path) -> None:
    kept = Quarantine(tmp_path, max_bytes=250)
    assert all(kept.put(bytes([at]) * 100) for at in range(2))
    assert kept.put(b"x" * 100) == ""
    assert kept.put(b"y" * 50)
    assert kept.put(bytes(100)), "it is there already"
    (tmp_path / "left.bin.new").write_bytes(b"half of a bl")
    assert Quarantine(tmp_path, max_bytes=300).put(b"x" * 51) == ""
    assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [50, 100, 100]


def correction(stream: UUID, sequence: int, last: int) -> bytes:
    return _native.correction(
        stream=stream.bytes,
        sequence=sequence,
        epoch=1,
        corrected=stream.bytes,
        first=1,
        last=last,
        offset_ns=10**9,
        sealed_ns=BEGIN,
    ).data


def catalog() -> bytes:
    tags = (
        CatalogTag(t.index, t.device, t.name, t.identifier, t.type.value, source={"protocol": "modbus"}) for t in TAGS
    )
    return Catalog(AGENT, tuple(tags)).encode()


@pytest.mark.parametrize("late", [False, True])
def test_a_correction_beyond_all_times_is_refused_and_not_sent_for_ever(tmp_path: Path, late: bool) -> None:
    stream = uuid4()
    far = block(stream, 1, [(0, HIGHEST - 5, True, 0), (0, BEGIN, True, 0)], epoch=epoch_of(catalog()))
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        if late:
            rig.send(correction(stream, 2, 1), far)
            assert rig.stream(stream)["committed"] == 2
        else:
            rig.send(far)
            rig.send(correction(stream, 2, 1))
            found = [Receipt.decode(body) for topic, body in rig.published if topic == f"{ROOT}/{AGENT}/receipts"]
            assert [each.sequence for receipt in found for each in receipt.rejected] == [2]
            assert rig.stream(stream)["committed"] == 1
        with rig.store.snapshot() as view:
            times = [time_ns for (time_ns,) in view.rows("SELECT time FROM every ORDER BY time")]
        assert times == [BEGIN, HIGHEST - 5]


def test_a_copied_outbox_takes_no_places_of_a_stream_that_is_being_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine was cloned, and the clone given another name: whatever it says of the stream, the original loses
    nothing, and the clone is told of nothing that would make it forget."""
    stream, clone = uuid4(), "clone"
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(State(True, stream).encode(), word="state")
        rig.send(block(stream, 1, epoch=epoch_of(catalog())))
        for forged in (gap(stream, 1, 10**9, 7), block(stream, 2, epoch=epoch_of(catalog()))):
            rig.send(forged, agent=clone)
        assert rig.receipts(stream) == [0, 1]
        assert not [topic for topic, _ in rig.published if topic == f"{ROOT}/{clone}/receipts"]
        rig.send(block(stream, 2, epoch=epoch_of(catalog())))
        assert (rig.stream(stream)["committed"], rig.stream(stream)["agent"]) == (2, AGENT)
        assert len([each for each in caplog.records if getattr(each, "event", "") == "stream_of_another"]) == 1
        # An agent that got another name: it went offline as the one and comes back as the other.
        rig.send(State(False, stream).encode(), word="state")
        rig.send(block(stream, 3, epoch=epoch_of(catalog())), agent="renamed")
        assert (rig.stream(stream)["committed"], rig.stream(stream)["agent"]) == (3, "renamed")
