"""What a person reads when a place can't be used or a peer is not there: what, where, and what to do."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import spoken
from agent.outbox import Outbox
from headrace import starter
from tests.peers.process import free_port
from tests.rig import until
from tests.test_outbox import MEBIBYTE, block

NO_CAPABILITIES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
"""Root may write everywhere; without these it is a user like others."""


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Path]:
    """What `headrace init` writes, at ports where nobody listens."""
    path = tmp_path / "plant.toml"
    text = starter.PLANT
    for port in ("1883", "5020", "4840", "8080"):
        text = text.replace(f":{port}", f":{free_port()}")
    path.write_text(text, encoding="utf-8")
    (tmp_path / "press1.csv").write_text(starter.PRESS, encoding="utf-8")
    (tmp_path / "furnace.csv").write_text(starter.FURNACE, encoding="utf-8")
    yield path
    for each in (tmp_path, *tmp_path.rglob("*")):
        each.chmod(0o700)


def refused(*words: object) -> str:
    """What a command says that fails at once."""
    command = [*NO_CAPABILITIES, sys.executable, "-m", "headrace", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "Errno" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_a_data_dir_that_can_t_be_written(plant: Path) -> None:
    var = plant.parent / "var"
    var.mkdir(mode=0o500)
    said = refused("run", plant)
    assert f"{var / 'press-shop-1'}: Permission denied" in said
    assert "the right to write there, or write another data_dir in [agent]" in said
    said = refused("datacenter", plant)
    assert f"{var / 'datacenter'}" in said
    assert "the right to write there, or write another store in [datacenter]" in said


def test_a_file_where_the_data_dir_should_be(plant: Path) -> None:
    (plant.parent / "var").write_text("x")
    said = refused("run", plant)
    assert "Not a directory" in said
    assert "write another data_dir in [agent]" in said
    assert "disk" not in said


def test_an_outbox_that_can_t_be_read(plant: Path) -> None:
    outbox = plant.parent / "var" / "press-shop-1" / "outbox.db"
    outbox.parent.mkdir(parents=True)
    outbox.write_bytes(b"")
    outbox.chmod(0)
    said = refused("run", plant)
    assert f"{outbox} can't be opened: Permission denied" in said
    assert "give this user the right to write there" in said


def test_ledgers_that_can_t_be_read_are_not_missing(plant: Path) -> None:
    ledgers = plant.parent / "var" / "press-shop-1" / "audit"
    ledgers.mkdir(parents=True)
    ledgers.chmod(0)
    assert f"{ledgers}: Permission denied" in refused("audit", "verify", plant)


def test_a_peer_that_is_not_there_is_named_with_its_address(plant: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = plant.read_text(encoding="utf-8")
    with log.open("wb") as out, subprocess.Popen([sys.executable, "-m", "headrace", "run", plant], stderr=out) as agent:
        until(lambda: log.read_text().count("trying again") == 3)
        agent.terminate()
        assert agent.wait(20) == 0
    said = log.read_text()
    assert "Errno" not in said
    assert "Connect call failed" not in said
    for device, url in (("press1: ", "tcp://"), ("furnace: ", "opc.tcp://"), ("", "mqtt://")):
        address = text.partition(f'"{url}')[2].partition('"')[0]
        (line,) = [line for line in said.splitlines() if address in line]
        assert f"{device}no connection to".lower() in line.lower()
        assert "Connection refused: nothing listens there" in line


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 5020)"), "Connection refused: nothing listens"),
        (OSError(errno.EHOSTUNREACH, "Connect call failed ('10.0.0.7', 502)"), "No route to host"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed"), "Multiple exceptions"),
        (TimeoutError(), "TimeoutError"),
        (PermissionError(13, "Permission denied", "/dev/ttyUSB0"), "Permission denied"),
    ],
)
def test_an_error_of_the_system_in_words(reason: OSError, words: str) -> None:
    assert spoken(reason).startswith(words)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    assert done.returncode == 0, f"can't mount a small file system to fill (are you root?): {done.stderr}"
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def test_a_disk_that_is_smaller_than_the_quota_is_said_before_and_when_it_is_full(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await Outbox.open(small / "outbox.db", max_bytes=64 * MEBIBYTE, when_full="drop_oldest")
    try:
        (early,) = [each for each in caplog.records if getattr(each, "event", "") == "disk_too_small"]
        assert "less than outbox.max_bytes = 67108864" in early.getMessage()
        while not [each for each in caplog.records if getattr(each, "event", "") == "readings_lost"]:
            await outbox.append(block(outbox, 500), 7)
    finally:
        await outbox.close()
    late = next(each for each in caplog.records if getattr(each, "event", "") == "readings_lost")
    assert f"The disk of {small / 'outbox.db'} is full" in late.getMessage()


async def test_a_quota_that_is_full_is_not_taken_for_the_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outbox = await Outbox.open(tmp_path / "outbox.db", max_bytes=256 * 1024, when_full="drop_oldest")
    try:
        while not [each for each in caplog.records if getattr(each, "event", "") == "readings_lost"]:
            await outbox.append(block(outbox, 500), 7)
    finally:
        await outbox.close()
    assert not [each for each in caplog.records if getattr(each, "event", "") == "disk_too_small"]
    late = next(each for each in caplog.records if getattr(each, "event", "") == "readings_lost")
    assert "outbox.max_bytes = 262144" in late.getMessage()
