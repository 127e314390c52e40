"""What people mistype on the command line: exit 2, and a sentence that says what to write; nothing is done."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import cli, starter


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """A command takes signals and log records for itself."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    interrupted = signal.getsignal(signal.SIGINT)
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    logging.getLogger("headrace").setLevel(logging.NOTSET)
    signal.signal(signal.SIGINT, interrupted)


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    for name, text in (("plant.toml", starter.PLANT), ("press1.csv", starter.PRESS), ("furnace.csv", starter.FURNACE)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """The exit code of a command, and what it wrote to stderr."""
    try:
        code = cli.main(words)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ("demo --seconds -5", "--seconds"),
        ("demo --seconds 0", "'0' is not above zero"),
        ("demo --seconds nan", "'nan' is not a time of zero or more; write 20, 20s, 500ms or 5m"),
        ("demo --seconds inf", "'inf' is not a time"),
        ("demo --seconds 10 --outage 10s", "an outage of 10 s in 10 s; write a longer --seconds"),
        ("run plant.toml --drain nan", "'nan' is not a time"),
        ("plan plant.toml --rtt 2h", "'2h' is an hour or more; write 20ms or 1.5s"),
        ("query x --limit 0", "'0' is not a number from 1 to 1000000"),
        ("query x --limit 1000001", "is not a number from 1 to 1000000"),
        ("query x --limit ²", "'²' is not a number"),
        ("query x --url ftp://x", "'ftp://x' is not a data center's address; write --url http://127.0.0.1:8080"),
        ("quality x --url 127.0.0.1:8080", "is not a data center's address"),
        ("reconcile --url x", "is not a data center's address"),
        ("verify plant.toml --url x", "is not a data center's address"),
        ("query x --format parquet", "parquet is not text; write --output"),
        ("browse opc.tcp://127.0.0.1:1 --depth -1", "is not a number from 1 to 1000"),
        ("probe tcp://127.0.0.1:1 --requests 0", "is not a number from 1 to"),
        ("probe tcp://127.0.0.1:1 --units 300", "'300' is past 255"),
        ("probe tcp://127.0.0.1:1 --addresses 9-1", "'9-1' is out of order"),
        ("resolve 88.118.8/a --url x", "'x' is not a resolver"),
        ("simulate plant.toml --cert none --key none", "there is no file none"),
        ("outbox status plant.toml --uplink level3", "has no uplink level3"),
        ("outbox export plant.toml out.blocks --file none", "there is no file none"),
    ],
)
def test_a_wrong_call(
    plant: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: str, says: str
) -> None:
    monkeypatch.chdir(plant)
    before = sorted(plant.iterdir())
    code, told = said(capsys, *call.split())
    assert code == 2, told
    assert says in told
    assert "Traceback" not in told
    assert sorted(plant.iterdir()) == before


@pytest.mark.parametrize(
    ("text", "seconds"), [("20", 20.0), ("20s", 20.0), ("500ms", 0.5), ("1.5m", 90.0), ("1 h", 3600.0), (".5", 0.5)]
)
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    from headrace.commands import parser

    assert parser().parse_args(["demo", "--seconds", text]).seconds == seconds
