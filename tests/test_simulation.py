"""Signals of a `[simulation]` table: pure functions of time, exact replays, and problems that say what is wrong."""

from __future__ import annotations

import csv
import math
import re
import struct
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from agent import config
from agent.errors import ConfigError
from agent.model import Tag, Value
from agent.simulation import load
from simulators.plant import Plant

S = 1_000_000_000
T0 = 1_750_000_000 * S
ROOT = Path(__file__).parent.parent
RECORDINGS = next((each for up in ROOT.parents if (each := up / "shared" / "data").is_dir()), ROOT / "nowhere")
"""Real signals beside the repository, where there are any."""
ROWS = ("real,float64", "single,float32", "short,int16", "wide,uint64", "bit,bool", "text,string", "other,float64")


def write(home: Path, signals: str, rows: tuple[str, ...] = ROWS) -> Path:
    """A config with one device `d` that has these tags, and these signals."""
    names = [f"{row.partition(',')[0]},nsu=urn:x;s={at},{row.partition(',')[2]}" for at, row in enumerate(rows)]
    (home / "d.csv").write_text("\n".join(["name,address,type,scale,low,high", *names]) + "\n", encoding="utf-8")
    path = home / "plant.toml"
    path.write_text(
        '[agent]\nid = "a"\ndata_dir = "./var"\n[uplink]\nurl = "mqtt://127.0.0.1:1883"\n'
        '[[device]]\nname = "d"\nprotocol = "opcua"\nsecurity = "None"\nurl = "opc.tcp://127.0.0.1:4840"\n'
        f'tags = "d.csv"\n{signals}',
        encoding="utf-8",
    )
    return path


def signal(tags: str, shape: str, **more: object) -> str:
    """One [[simulation.signal]]; text that begins with a bracket and a brace is TOML already."""
    said = {"tags": tags, "shape": shape, **more}
    words = [f"{key} = {_toml(value)}" for key, value in said.items()]
    return "\n".join(["[[simulation.signal]]", *words, ""])


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) or str(value).startswith("[{") else f'"{value}"'


def plant_of(home: Path, *signals: str, rows: tuple[str, ...] = ROWS) -> tuple[Plant, dict[str, Tag]]:
    found = config.load(write(home, "".join(signals), rows))
    return Plant.of(found), {tag.name: tag for tag in found.tags}


def series(plant: Plant, tag: Tag, seconds: float, start: int = T0) -> list[Value]:
    step = plant.step_ns(tag)
    return [plant.value(tag, at) for at in range(start - start % step, start + int(seconds * S), step)]


def numbers(plant: Plant, tag: Tag, seconds: float) -> list[float]:
    found = series(plant, tag, seconds)
    assert all(isinstance(each, int | float) for each in found)
    return [each for each in found if isinstance(each, int | float)]


def test_every_shape_moves_as_it_says(tmp_path: Path) -> None:
    states = '[{ value = "idle", for = "3s" }, { value = "busy", for = "2s" }]'
    plant, tags = plant_of(
        tmp_path,
        signal("d.real", "sine", low=-10, high=30, period="20s"),
        signal("d.single", "ramp", low=1, high=2, period="10s", fall="1s"),
        signal("d.short", "square", low=-5, high=5, period="8s", duty=0.25),
        signal("d.wide", "counter", rate=2.5),
        signal("d.bit", "cycles", on="3s", off="1s"),
        signal("d.text", "states", states=states),
        signal("d.other", "walk", low=5, high=6, period="30s"),
    )
    sine = numbers(plant, tags["real"], 20)
    assert (round(min(sine)), round(max(sine)), round(sum(sine) / len(sine))) == (-10, 30, 10)
    ramp = numbers(plant, tags["single"], 10)
    assert ramp == sorted(ramp[:36]) + sorted(ramp[36:], reverse=True)
    assert series(plant, tags["short"], 8).count(5) == 8, "a quarter of 32 steps"
    assert numbers(plant, tags["wide"], 10)[-1] - numbers(plant, tags["wide"], 10)[0] == 24
    assert series(plant, tags["bit"], 40).count(True) == 120
    assert series(plant, tags["text"], 50).count("busy") == 80
    walk = numbers(plant, tags["other"], 300)
    assert 5 <= min(walk) < max(walk) <= 6
    again, _ = plant_of(tmp_path, *[], rows=ROWS)
    assert series(again, tags["other"], 5) != series(plant, tags["other"], 5)


def test_a_counter_counts_only_while_its_tag_runs_and_periods_of_another(tmp_path: Path) -> None:
    plant, tags = plant_of(
        tmp_path,
        signal("d.bit", "cycles", on="6s", off="4s"),
        signal("d.wide", "counter", rate=2, running="d.bit"),
        signal("d.other", "ramp", period="5s", low=0, high=1),
        signal("d.short", "counter", counts="d.other"),
    )
    count, runs = numbers(plant, tags["wide"], 60), series(plant, tags["bit"], 60)
    assert count[-1] - count[0] == 12 * 6 - 0 if not runs[-1] else 72 - 1
    assert all(later == sooner for sooner, later, on in zip(count, count[1:], runs, strict=False) if not on)
    turns = numbers(plant, tags["short"], 60)
    assert [later - sooner for sooner, later in pairwise(turns) if later != sooner] == [1] * 11


def test_an_expression_follows_its_tags(tmp_path: Path) -> None:
    plant, tags = plant_of(
        tmp_path,
        signal("d.other", "sine", low=0, high=10, period="30s"),
        signal("d.real", "expression", expression="2 * other + 1 if other > 5 else -d.other % 3 / 0"),
        signal("d.single", "expression", expression="clamp(mean(other, 8), 1, 9) + ago(other, 4) * 0.5"),
        signal("d.bit", "expression", expression="not (other > 3 and other <= 7) or text == 'x'"),
        signal("d.text", "expression", expression="'high' if d.other > 5 else 'low'"),
        signal("d.short", "expression", expression="1e9 * other"),
    )
    for at in range(T0, T0 + 60 * S, S // 4):
        x = plant.value(tags["other"], at)
        assert isinstance(x, float)
        assert plant.value(tags["real"], at) == (2 * x + 1 if x > 5 else 0)
        assert plant.value(tags["bit"], at) == (not 3 < x <= 7)
        assert plant.value(tags["text"], at) == ("high" if x > 5 else "low")
        back = [plant.value(tags["other"], at - each * S) for each in range(8)]
        mean = sum(each for each in back if isinstance(each, float)) / 8
        wanted = min(max(mean, 1), 9) + 0.5 * float(str(plant.value(tags["other"], at - 4 * S)))
        assert plant.value(tags["single"], at) == struct.unpack("<f", struct.pack("<f", wanted))[0]
        assert plant.value(tags["short"], at) == min(32767, math.floor(1e9 * x + 0.5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os').system('true')", "not known here"),
        ("(lambda: 1)()", "not known here"),
        ("other.__class__", "no tag other.__class__"),
        ("[1 for x in other]", "not known here"),
        ("2 ** 9 ** 9", "not known here"),
        ("nothing + 1", "no tag nothing"),
        ("1 +", "not an expression"),
        ("(" * 240 + "1" + ")" * 240, "not an expression"),
        ("-" * 200 + "1", "nested more than"),
        ("mean(mean(mean(mean(other, 1), 1), 1), 1)", None),
        ("mean(mean(mean(mean(mean(other, 1), 1), 1), 1), 1)", "means of means"),
        ("1" + "+1" * 300, "characters"),
        ("ago(other, other)", "wants a value and seconds"),
        ("min(other)", "min with 1 values"),
        ("real + 1", "follows from itself, d.real -> d.real"),
    ],
)
def test_an_expression_can_do_nothing_else(tmp_path: Path, text: str, message: str | None) -> None:
    signals = signal("d.real", "expression", expression=text)
    if message is None:
        plant_of(tmp_path, signals)
        return
    with pytest.raises(ConfigError, match=re.escape(message)):
        plant_of(tmp_path, signals)


def test_a_circle_over_several_tags_is_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"d\.real -> d\.other -> d\.single -> d\.real"):
        plant_of(
            tmp_path,
            signal("d.real", "expression", expression="other"),
            signal("d.other", "expression", expression="single"),
            signal("d.single", "expression", expression="real"),
        )


@pytest.mark.parametrize(
    ("signals", "field", "message"),
    [
        (signal("d.real", "sinus", period="1s"), "shape", "'sinus' is not known here"),
        (signal("d.real", "sine"), "simulation.signal[0]", "a sine without period"),
        (signal("d.real", "sine", period="1s", duty=0.5), "simulation.signal[0]", "a sine has no duty"),
        (signal("d.real", "sine", period="1s", perod="2s"), "perod", "unknown key 'perod'"),
        (signal("d.nothing", "noise"), "tags", "no tag fits 'd.nothing'"),
        (signal("d.real", "replay", file="no.csv", column="x", interval="1s"), "file", "can't be read"),
        ("[simulation]\nsed = 3\n", "sed", "unknown key 'sed'"),
        (signal("d.real", "constant", value=float("nan")), "value", "nan is no value"),
        (signal("d.real", "sine", period="1s", low=float("-inf")), "low", "-inf is no value"),
        (signal("d.real", "sine", period="1s", noise=float("inf")), "noise", "inf is no value"),
        (signal("d.real", "states", states='[{ value = 1e301, for = "1s" }]'), "states[0].value", "1e+301 is no value"),
        ('[[simulation.device]]\nname = "dd"\nprofile = "s7-1200"\n', "simulation.device[0].name", "no device fits"),
    ],
)
def test_check_names_what_is_wrong(tmp_path: Path, signals: str, field: str, message: str) -> None:
    path = write(tmp_path, signals)
    with pytest.raises(ConfigError) as caught:
        Plant.of(config.load(path))
    [problem] = caught.value.problems
    assert field in problem.field
    assert message in problem.message
    assert "Errno" not in problem.message
    assert problem.line is not None
    assert problem.line > len(path.read_text().splitlines()) - len(signals.splitlines())


def test_what_was_meant_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("\ufefftime, oil_temp\n0,1\n", encoding="utf-8")
    for signals, hint in (
        (signal("d.rael", "noise"), "write d.real"),
        (signal("d.real", "expression", expression="1 + d.singel"), "write d.single"),
        (signal("d.real", "replay", file="x.csv", column="oil_tmp", time="time"), "write oil_temp"),
        ('[[simulation.device]]\nname = "dd"\nprofile = "s7-1200"\n', "write d"),
    ):
        with pytest.raises(ConfigError) as caught:
            plant_of(tmp_path, signals)
        assert [each.hint for each in caught.value.problems] == [hint]


@pytest.mark.parametrize("backwards", [False, True])
def test_a_chain_that_python_can_not_follow_is_refused(tmp_path: Path, *, backwards: bool) -> None:
    """It was followed until the first value was wanted: then the server died."""
    rows = tuple(f"x{at},float64,,," for at in range(400))
    links = [signal(f"d.x{at}", "expression", expression=f"x{at - 1} + 1") for at in range(1, 400)]
    with pytest.raises(ConfigError, match="too deep"):
        plant_of(tmp_path, *(links[::-1] if backwards else links), rows=rows)
    deep = "(" * 35 + "x1" + " + 1)" * 35
    some = [signal(f"d.x{at}", "expression", expression=deep.replace("x1", f"x{at - 1}")) for at in range(1, 6)]
    plant, tags = plant_of(tmp_path, *some, rows=rows)
    assert isinstance(plant.value(tags["x5"], T0), float)


def test_a_scale_that_is_next_to_nothing_ends_no_server(tmp_path: Path) -> None:
    rows = ("whole,int16,1e-100,,",)
    plant, tags = plant_of(tmp_path, signal("d.whole", "constant", value=1e290), rows=rows)
    assert plant.raw(tags["whole"], T0) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", "has no rows"),
        ("x.csv", b"x,y\n", "has no rows"),
        ("x.csv", "x,y\n1,2\n".encode("utf-16"), "is not text in UTF-8"),
        ("x.csv", b"x;y\n1,5;1\n", "row 1 of x.csv has '1,5' in column x, which is no number"),
        ("x.csv", b"x,y\n1,1\nn/a,2\n", "row 2 of x.csv has 'n/a' in column x, which is no number"),
        ("x.parquet", b"", "can't be read as Parquet"),
        ("x.parquet", b"x,y\n1,2\n", "can't be read as Parquet"),
        ("x.parquet", [[1.5]], "values of type list"),
        ("x.parquet", [b"a"], "values of type bytes"),
        ("x.parquet", [], "has no rows"),
    ],
)
def test_a_recording_that_is_none_is_named(tmp_path: Path, name: str, content: Any, message: str) -> None:
    if isinstance(content, list):
        parquet.write_table(pa.table({"x": pa.array(content, None if content else pa.float64())}), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        plant_of(tmp_path, signal("d.real", "replay", file=name, column="x", interval="1s"))
    [problem] = caught.value.problems
    assert problem.field == "simulation.signal[0].file"


def test_a_recording_with_a_mark_of_its_order_and_numbers_beyond_any_device(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("\ufeffx,y\n1.5,1\n1e400,2\n" + "9" * 400 + ",3\n2.5,4\n", encoding="utf-8")
    plant, tags = plant_of(tmp_path, signal("d.real", "replay", file="x.csv", column="x", interval="1s"))
    assert [plant.value(tags["real"], at * S) for at in range(4)] == [1.5, 1.5, 1.5, 2.5]


def test_a_file_of_its_own_replaces_the_configs_table(tmp_path: Path) -> None:
    path = write(tmp_path, "[simulation]\nseed = 5\n" + signal("d.real", "constant", value=1.5))
    other = tmp_path / "other.toml"
    other.write_text("[simulation]\nseed = 6\n" + signal("d.rea?", "constant", value=2.5), encoding="utf-8")
    found = config.load(path)
    real = found.tags[0]
    assert (Plant.of(found).seed, Plant.of(found).value(real, T0)) == (5, 1.5)
    assert (Plant.of(found, file=other).seed, Plant.of(found, file=other).value(real, T0)) == (6, 2.5)
    assert Plant.of(found, 9, other).seed == 9
    other.write_text("[simulaton]\nseed = 6\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="there is no table"):
        load(other)
    other.write_text('[simulation]\nseed = "x"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="text where a whole number"):
        load(other)


def shown(plant: Plant, tag: Tag, start: int, seconds: float) -> list[tuple[int, Value]]:
    """(time, value) of each step at which another row begins, whether or not its value is another."""
    return [(at, plant.value(tag, at)) for at in range(start, start + int(seconds * S), plant.step_ns(tag))]


def test_a_replay_gives_back_every_row_at_its_time(tmp_path: Path) -> None:
    rows = [("2026-01-01T00:00:00Z", 1.5), ("2026-01-01T00:00:10Z", 2.25), ("2026-01-01T00:00:25Z", 0.1)]
    text = "time,x\n" + "".join(f"{time},{value}\n" for time, value in rows)
    (tmp_path / "x.csv").write_text(text + "2026-01-01T00:00:30Z,\n", encoding="utf-8")
    told = {"file": "x.csv", "column": "x", "time": "time", "speed": 10}
    plant, tags = plant_of(tmp_path, signal("d.real", "replay", **told))
    assert plant.step_ns(tags["real"]) == S // 2
    start = T0 - T0 % (4 * S)  # one turn is 3 s of rows and the usual 1 s after them
    found = [value for _, value in shown(plant, tags["real"], start, 8)]
    assert found == ([1.5] * 2 + [2.25] * 3 + [0.1] * 3) * 2


def test_a_replay_once_begins_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_text("  1.0  7\n  2.0  8\n  3.0  9\n", encoding="utf-8")
    start = "start = 2026-01-01T00:00:00Z\n"
    told = signal("d.short", "replay", file="x.dat", column=1, interval="1s", loop=False) + start
    plant, tags = plant_of(tmp_path, told)
    at = 1_767_225_600 * S
    assert [plant.value(tags["short"], at + each * S) for each in (-5, 0, 1, 2, 3, 900)] == [7, 7, 8, 9, 9, 9]


def test_parquet_and_csv_give_the_same(tmp_path: Path) -> None:
    times = [T0 + each * S for each in range(50)]
    values = [math.sqrt(each) for each in range(50)]
    table = pa.table({"when": pa.array(times, pa.timestamp("ns", "UTC")), "x": values})
    parquet.write_table(table, tmp_path / "x.parquet")
    with (tmp_path / "x.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("when", "x"), *((each / S, value) for each, value in zip(times, values, strict=True))]
        )
    told = {"column": "x", "time": "when"}
    plant, tags = plant_of(
        tmp_path,
        signal("d.real", "replay", file="x.parquet", **told),
        signal("d.other", "replay", file="x.csv", **told),
    )
    start = T0 - T0 % (50 * S)
    found = [value for _, value in shown(plant, tags["real"], start, 50)]
    assert found == values
    assert found == [value for _, value in shown(plant, tags["other"], start, 50)]


@pytest.mark.parametrize(
    ("name", "column", "told", "speed"),
    [
        ("nab_machine_temperature_system_failure.csv", "value", {"time": "timestamp"}, 600),
        ("Steel_industry_data.csv", "Usage_kWh", {"interval": "15m"}, 900),
        ("tep_d00_te.dat", 6, {"interval": "180s"}, 180),
    ],
)
def test_real_recordings_come_back_exactly(
    tmp_path: Path, name: str, column: str | int, told: dict[str, str], speed: int
) -> None:
    """Where the recordings are not there, one is made in their form: the same assertions hold."""
    file = RECORDINGS / name
    if not file.exists():
        file = tmp_path / name
        rows = [f"2018-01-01 {at // 60:02d}:{at % 60:02d}:00,{at / 7}" for at in range(0, 1200, 15)]
        named = [f"{told.get('time', 'date')},{column}", *rows]
        file.write_text("\n".join([" 1.0" * 6 + f" {at / 7:.4e}" for at in range(400)] if column == 6 else named))
    played = signal("d.real", "replay", file=str(file), column=column, speed=speed, loop=False, **told)
    plant, tags = plant_of(tmp_path, played + "start = 2026-01-01T00:00:00Z\n")
    lines = file.read_text().splitlines()
    if column == 6:
        values = [float(line.split()[6]) for line in lines]
    else:
        values = [float(row[str(column)]) for row in csv.DictReader(lines)]
    usual = 300 if name.startswith("nab") else speed
    times = [0]
    if "time" in told:
        read = [datetime.fromisoformat(row[told["time"]]).replace(tzinfo=UTC) for row in csv.DictReader(lines)]
        for before, after in pairwise(read):  # a clock that was set back: the row is shown the usual time later
            times.append(times[-1] + int((after - before).total_seconds() if after > before else usual) * S)
    else:
        times = [usual * S * at for at in range(len(values))]
    start = 1_767_225_600 * S
    assert len(values) == len(times) >= 80
    for at, (here, there) in enumerate(pairwise([*times, times[-1] + usual * S])):
        assert plant.value(tags["real"], start + here // speed) == values[at]
        assert plant.value(tags["real"], start + there // speed - 1) == values[at]
