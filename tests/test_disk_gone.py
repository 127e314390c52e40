"""What an agent does when the file system below its outbox shuts down, as xfs does by itself where its log fails."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.kill_rig import PLANT_SEED, check_whole, committed, press, settle
from tests.outbox_disks import Disk
from tests.peers.brokers import Mosquitto
from tests.rig import Plant, agent, data_center, headrace, simulator, until

pytestmark = pytest.mark.timeout(150)
SECONDS = 45.0
"""Until it has noticed."""


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_an_agent_whose_disk_goes_away_loses_nothing_that_was_committed(
    tmp_path: Path, mosquitto: Mosquitto, kind: str
) -> None:
    with Disk(tmp_path, kind) as disk:
        (tmp_path / "agent").symlink_to(disk.place)
        plant = Plant.write(tmp_path, mosquitto.url, [press()])
        with simulator(tmp_path, plant, PLANT_SEED), agent(tmp_path, plant) as process:
            # No data center yet: what is committed stays in the outbox.
            until(lambda: len(committed(tmp_path)) >= 3)
            disk.write_back()  # pages of SQLite's index that are clean can't be written to any more after the cut
            promised = committed(tmp_path)
            disk.cut()
            until(lambda: not process.running() or "outbox_unwritable" in process.events(), SECONDS)
            with data_center(tmp_path, plant) as center:
                print(f"{kind}: the agent {'goes on' if process.running() else f'ended with {process.code()}'}")
                if process.running():
                    process.kill()  # whose disk is mended: it has files of the old mount open
                else:
                    assert process.code() == -signal.SIGBUS, process.log.read_text()[-2000:]
                    assert "Bus error" in process.log.read_text()
                refused = headrace("run", str(plant.path))
                assert refused.returncode == 1
                assert "is its disk full, or failing?" in refused.stderr
                assert str(tmp_path / "agent") in refused.stderr
                assert "Traceback" not in refused.stderr
                disk.again()
                found = committed(tmp_path)
                assert promised.items() <= found.items()
                process.start()
                until(lambda: plant.streams() and plant.streams()[0]["committed"] > max(found), 30)
                verdict = settle(plant, process)
                center.stop()
        assert (verdict.duplicates, verdict.wrong) == (0, 0), verdict.examples
        check_whole(tmp_path)
