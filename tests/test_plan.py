"""`headrace plan`: what it says a config would do, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent._native import Buffer
from agent.collectors.requests import Request
from agent.config import load
from agent.endpoint import Endpoint, LineSettings
from agent.model import Tag, ValueType
from headrace import linetime, volume
from headrace.cli import main
from headrace.linetime import Assumed
from headrace.plan import plan
from simulators.plant import Plant
from tests.test_config import GOOD, write

HEAD = 'agent = { id = "a", data_dir = "var" }\nuplink = {}\n'
SHAPE = {"devices", "readings_per_second", "bytes_per_day", "outage_hours"}


def config(place: Path, devices: list[tuple[str, list[str]]], outbox: str = "2 GiB") -> Path:
    """A config of Modbus devices: (lines of its table, rows of its tag list)."""
    text = f'{HEAD}outbox = {{ max_bytes = "{outbox}" }}\n'
    for at, (lines, rows) in enumerate(devices):
        (place / f"d{at}.csv").write_text("name,address,type,poll\n" + "\n".join(rows) + "\n")
        text += f'[[device]]\nname = "d{at}"\nprotocol = "modbus"\ntags = "d{at}.csv"\n{lines}\n'
    (place / "agent.toml").write_text(text)
    return place / "agent.toml"


def facts(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    code = main(["plan", str(path), "--json", *options])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(found) == SHAPE
    return code, found


def test_the_plan_of_the_good_config_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = facts(write(tmp_path), capsys)
    assert code == 0
    assert found["devices"] == [
        {
            "name": "press1",
            "protocol": "modbus",
            "requests": [
                {"function": 1, "address": 3, "count": 1, "tags": ["running"]},
                {"function": 3, "address": 100, "count": 2, "tags": ["temp"]},
                {"function": 4, "address": 8, "count": 2, "tags": ["count"]},
            ],
            "bus_ms_per_cycle": 30.0,
            "ok": True,
        },
        {
            "name": "furnace",
            "protocol": "opcua",
            "monitored_items": 2,
            "values_per_second": 4.0,
            "notifications_per_second": 2.0,
            "queue_size": 121,
            "covered_seconds": 60.0,
            "ok": True,
        },
    ]
    assert found["readings_per_second"] == 10.0
    assert found["outage_hours"] == pytest.approx(2 * 1024**3 / found["bytes_per_day"] * 24, abs=0.1)


def test_a_round_trip_that_leaves_no_time_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = facts(write(tmp_path), capsys, "--rtt", "200ms")
    assert code == 2
    press, furnace = found["devices"]
    assert (press["ok"], furnace["ok"]) == (False, True)
    assert press["bus_ms_per_cycle"] == 600.0
    assert "3 requests take 600 ms of every 500 ms at 127.0.0.1:5020 (120%)" in press["why"]
    assert "poll every 660 ms or less often" in press["why"]


def test_a_slow_serial_line_is_refused_with_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"t{at},hr:{at * 2},float32," for at in range(120)]
    path = config(tmp_path, [('url = "rtu:///dev/ttyUSB0?baudrate=9600"\npoll = "500ms"', rows)])
    code, found = facts(path, capsys)
    (device,) = found["devices"]
    assert code == 2
    assert [request["count"] for request in device["requests"]] == [124, 116]
    # 2 * 8 bytes asked, 2 * 5 + 480 answered, 11 bits each; two silences of 3.5 characters and two turnarounds of 10 ms
    assert device["bus_ms_per_cycle"] == pytest.approx((16 + 490 + 7) * 11 / 9.6 + 20, abs=0.01)
    assert "2 requests take 608 ms of every 500 ms at /dev/ttyUSB0 at 9600 baud (122%)" in device["why"]
    assert "raise the baud rate" in device["why"]
    assert facts(config(tmp_path, [('url = "rtu:///dev/ttyUSB0?baudrate=9600"', rows)]), capsys)[0] == 0


def test_devices_of_one_line_add_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"t{at},hr:{at * 2},float32," for at in range(30)]
    line = 'url = "rtu:///dev/ttyUSB0?baudrate=9600&parity=N"\npoll = "500ms"\nunit = '
    alone = facts(config(tmp_path, [(f"{line}1", rows)]), capsys)[1]["devices"][0]
    assert alone["ok"]
    code, found = facts(config(tmp_path, [(f"{line}{unit}", rows) for unit in range(1, 5)]), capsys)
    assert code == 2
    assert not any(device["ok"] for device in found["devices"])
    share = round(alone["bus_ms_per_cycle"] / 5)
    assert f"the 4 devices at /dev/ttyUSB0 at 9600 baud together {alone['bus_ms_per_cycle'] / 500 * 4:.0%}" in (
        why := found["devices"][0]["why"]
    )
    assert f"d0 {share}%, d1 {share}%" in why
    other = line.replace("ttyUSB0", "ttyUSB1")
    shared = [(f"{line}1", rows), (f"{line}2", rows), (f"{other}1", rows), (f"{other}2", rows)]
    assert facts(config(tmp_path, shared), capsys)[0] == 0


def test_slower_tags_count_in_proportion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["a,hr:0,float32,", "b,hr:2,float32,10s"]
    _, found = facts(config(tmp_path, [('url = "tcp://127.0.0.1:1"\npoll = "1s"', rows)]), capsys)
    assert found["devices"][0]["bus_ms_per_cycle"] == 11.0
    assert found["readings_per_second"] == 1.1


def test_a_line_that_is_closed_after_each_poll_costs_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = 'url = "tcp://127.0.0.1:1"\npoll = "1s"\nconnection = "each_poll"\nconnect_pause = "100ms"\ndelay = "5ms"'
    _, found = facts(config(tmp_path, [(lines, ["a,hr:0,float32,", "b,hr:90,float32,"])]), capsys)
    assert found["devices"][0]["bus_ms_per_cycle"] == 110 + 2 * 15


def test_the_table_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(write(tmp_path))]) == 0
    shown = capsys.readouterr().out
    for part in (
        "press1: modbus, unit 1 at 127.0.0.1:5020",
        "3 holding registers      100      2     25  10.0  500 ms  temp",
        "3 requests, 72 bytes; 30.0 ms of every 500 ms on the line (6.0%)",
        "furnace: opcua, 2 monitored items at opc.tcp://user.example:4840/plant",
        "at most 10.0 readings/s, about",
        "the outbox of 2.15 GB covers about",
        "assumed: a round trip of 10 ms",
    ):
        assert part in shown, shown
    assert main(["plan", str(tmp_path / "agent.toml"), "--rtt", "1s"]) == 2
    assert "CAN'T WORK: 3 requests take 3000 ms" in capsys.readouterr().out


def test_a_config_without_devices_has_a_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "agent.toml").write_text(HEAD)
    code, found = facts(tmp_path / "agent.toml", capsys)
    assert (code, found["devices"], found["bytes_per_day"], found["outage_hours"]) == (0, [], 0, None)


def test_a_broken_config_and_a_wrong_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, GOOD.replace("unit = 1", "unit = 999"))
    assert main(["plan", str(path)]) == 2
    assert "device[0].unit" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["plan", str(path), "--rtt", "soon"])
    assert stopped.value.code == 2
    assert "write 20, 20s, 500ms or 5m" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "count", "sizes", "milliseconds"),
    [
        ("tcp://h", 125, (12, 259), 10.0),
        ("rtu:///dev/x?baudrate=9600", 10, (8, 25), (33 + 3.5) * 11 / 9.6 + 10),
        ("rtu:///dev/x?baudrate=9600&parity=N&stopbits=1", 10, (8, 25), (33 + 3.5) * 10 / 9.6 + 10),
        ("rtu:///dev/x?baudrate=115200", 10, (8, 25), 33 * 11 / 115.2 + 1.75 + 10),
        ("rtu:///dev/x?baudrate=300", 1, (8, 7), (15 + 3.5) * 11 / 0.3 + 3.5 * 11 / 0.3),
    ],
)
def test_times_by_hand(url: str, count: int, sizes: tuple[int, int], milliseconds: float) -> None:
    line, request = LineSettings((Endpoint.parse(url),)), Request(3, 0, count, ())
    assert linetime.frames(line.endpoints[0].framing, request) == sizes
    assert linetime.seconds(line, request, Assumed()) * 1000 == pytest.approx(milliseconds)


def test_ascii_frames_are_twice_as_long() -> None:
    line, request = LineSettings((Endpoint.parse("ascii:///dev/x?baudrate=9600"),)), Request(1, 0, 9, ())
    assert linetime.frames(line.endpoints[0].framing, request) == (17, 15)  # 9 coils are 2 bytes
    assert linetime.seconds(line, request, Assumed(turnaround=0)) == pytest.approx(32 / 960 + line.gap)


@pytest.mark.parametrize("after", [1.0, 10.0, 60.0])
@pytest.mark.parametrize("count", [4, 48])
def test_the_estimate_of_bytes_is_near_what_blocks_have(after: float, count: int) -> None:
    kinds = [ValueType.FLOAT32, ValueType.INT16, ValueType.BOOL, ValueType.UINT32]
    words = ("temp", "position", "running", "count")
    tags = [
        Tag(at, "d", f"{words[at % 4]}_{at}", f"hr:{at}", kinds[at % 4], f"x/{at}", unit="°C") for at in range(count)
    ]
    plant, buffer, step, size = Plant(tags, seed=1), Buffer(tags), 10**9, 0
    rounds = int(max(after, 10))
    for scan in range(rounds):
        now = 1_750_000_000 * 10**9 + scan * step
        buffer.push([(tag.index, now, plant.value(tag, now), 0) for tag in tags])
        if (scan + 1) % after == 0 and (block := buffer.seal()) is not None:
            size += len(block)
    measured = size / rounds * 86400
    estimated = volume.bytes_per_day([volume.Stream(tag.type, 1.0) for tag in tags], after, 1 << 20)
    assert 0.6 < estimated / measured < 1.7


def test_a_plan_of_many_devices_is_quick_and_whole(tmp_path: Path) -> None:
    rows = [f"t{at},hr:{at * 3},float32," for at in range(100)]
    devices = [(f'url = "tcp://127.0.0.1:{5000 + at}"', rows) for at in range(30)]
    found = plan(load(config(tmp_path, devices)))
    assert found.ok
    assert found.readings_per_second == pytest.approx(3000)
    assert {len(each["requests"]) for each in found.facts()["devices"]} == {3}
