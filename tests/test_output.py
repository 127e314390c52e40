"""What commands print, wherever it goes: another encoding, a full disk, a reader that went away, nowhere at all."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace import starter

COMMAND = Path(sys.executable).with_name("headrace")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""As a machine with a locale of its own, such as GB18030, but with even fewer characters."""


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    for name, text in (("plant.toml", starter.PLANT), ("press1.csv", starter.PRESS), ("furnace.csv", starter.FURNACE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / "plant.toml"


def run(*words: object, env: dict[str, str] | None = None, **more: Any) -> subprocess.CompletedProcess[bytes]:
    more = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
    command = [str(COMMAND), *map(str, words)]
    return subprocess.run(command, env={**os.environ, **(env or {})}, timeout=40, check=False, **more)


def test_documents_are_utf_8_in_every_locale(plant: Path) -> None:
    assert "生产" in run("labels", plant, env=ASCII).stdout.decode()
    assert json.loads(run("catalog", plant, env=ASCII).stdout)["tags"][0]["unit"] == "°C"


def test_a_terminal_without_a_character_shows_an_escape(plant: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen([COMMAND, "labels", plant], stdout=theirs, env={**os.environ, **ASCII}) as labels:
        os.close(theirs)
        shown = b""
        while part := read(ours):
            shown += part
        assert labels.wait(20) == 0
    os.close(ours)
    assert rb"\u751f\u4ea7" in shown


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # its other end was closed
        return b""


def test_a_full_disk_is_said(plant: Path) -> None:
    for words in (("check", plant), ("catalog", plant), ("--version",)):
        with Path("/dev/full").open("wb") as full:
            done = run(*words, stdout=full)
        assert done.returncode == 1, words
        assert done.stderr == b"headrace: the output can't be written: No space left on device\n"


def test_a_reader_that_went_away_is_nothing_wrong(plant: Path) -> None:
    for words in (("check", plant), ("catalog", plant), ("--help",)):
        ours, theirs = os.pipe()
        os.close(ours)
        done = run(*words, stdout=theirs)
        os.close(theirs)
        assert (done.returncode, done.stderr) == (0, b""), words


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(plant: Path, closed: str) -> None:
    for words, code in (
        (f"check {plant}", 0),
        ("query x --url http://127.0.0.1:1", 1),
    ):
        done = subprocess.run(["sh", "-c", f"{COMMAND} {words} {closed}"], capture_output=True, timeout=40, check=False)
        assert done.returncode == code, (words, done.stderr)
        assert b"Traceback" not in done.stderr
