"""`headrace simulate --faults`: what the file may say, when faults act, and the example of docs/faults.md."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from agent import config
from agent.errors import ConfigError
from simulators import faults
from simulators.faults import Faults, FaultTable, Line, Schedule, load, seeds
from simulators.oracle import Oracle
from simulators.plant import Plant as VirtualPlant
from simulators.proxy import Fault, Kind, Proxy, Way
from tests.opcua_plant import Committed
from tests.peers.process import free_port
from tests.rig import Command, Device, Plant, agent, headrace, until
from tests.virtual_time import run

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

DOCS = Path(__file__).parent.parent / "docs" / "faults.md"
SEED = 3


def plant(home: Path) -> Plant:
    rows = [f"t{index},hr:{2 * index},float32,ABCD" for index in range(10)]
    spare = f'protocol = "modbus"\nurl = "rtu://{home}/tty"\npoll = "1s"'
    devices = [
        Device(
            name, f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "100ms"\ntimeout = "600ms"', rows
        )
        for name in ("press1", "press2")
    ]
    nodes = [f"v{index},nsu=urn:headrace:plant;s=v{index},float64," for index in range(10)]
    furnace = f'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:{free_port()}"\nsecurity = "None"\npublish = "100ms"'
    devices += [Device("furnace", furnace, nodes), Device("serial", spare, rows)]
    return Plant.write(home, f"mqtt://127.0.0.1:{free_port()}", devices)


def example(at: int = 0) -> str:
    found: list[str] = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(found) == 2
    return found[at]


def test_the_example_of_the_docs_acts_and_loses_nothing(tmp_path: Path) -> None:
    made = plant(tmp_path)
    file = tmp_path / "faults.toml"
    file.write_text(example(), encoding="utf-8")
    with ExitStack() as running:
        arguments = ("simulate", str(made.path), "--json", "--seed", str(SEED), "--faults", str(file))
        simulator = running.enter_context(Command(tmp_path / "simulate", *arguments, word='"ready"'))
        process = running.enter_context(agent(tmp_path, made, "--drain", "0"))
        until(lambda: Counter(simulator.events())["fault_ended"] >= 4)
        before = Committed.of(made)
        counts = {tag: len(readings) for tag, readings in before.readings.items()}
        tags = range(len(config.load(made.path).tags))

        def all_go_on() -> bool:
            now = Committed.of(made).readings
            return all(len(now.get(tag, ())) > (counts.get(tag, 0) + 5 if tag < 20 else 0) for tag in tags)

        until(all_go_on, 40)
        process.stop()
        simulator.stop()
        last = next(line for line in simulator.lines() if line.get("event") == "simulation_stopped")
    begun = Counter((each["device"], each["kind"]) for each in simulator.lines() if each.get("event") == "fault_begun")
    stalls = begun["press1", "stall"]  # one every 10 s
    assert begun == {
        ("press1", "stall"): stalls, ("press2", "stall"): stalls, ("furnace", "delay"): 1, ("press1", "lose"): 1
    }  # fmt: skip
    assert last["faults_begun"] == begun.total() >= last["faults_ended"] >= 4
    found = config.load(made.path)
    oracle = Oracle(VirtualPlant(found.tags, SEED), found)
    committed = Committed.of(made)
    for tag in found.tags:
        for time_ns, value, quality in committed.readings[tag.index]:
            assert not oracle.wrong(tag, time_ns, value, quality), (tag, time_ns, value)  # type: ignore[arg-type]
    lost = Counter(each["device"] for each in process.lines() if each.get("event") == "device_lost")
    assert "serial" not in lost
    assert "furnace" not in lost
    assert committed.gaps == []


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("", (None, "(file)"), "there is no fault", "write a [[fault]] with kind and for"),
        ('[[fault]]\nfor = "1s"', (1, "fault[0].kind"), "kind is missing", 'write kind = "stall"'),
        ('[[fault]]\nkind = "cut"', (1, "fault[0].for"), "for is missing", 'write for = "3s"'),
        ('[[fault]]\nkind = "stal"\nfor = 1', (2, "fault[0].kind"), "'stal' is no kind of fault", "write stall"),
        ('[[fault]]\nkind = "cut"\nfor = "x"', (3, "fault[0].for"), "'x' is not a duration", 'write "500ms"'),
        ('[[fault]]\nkind = "cut"\nfor = 1\nat = -1', (4, "fault[0].at"), "not a duration above zero", "write"),
        ('[[fault]]\nkind = "cut"\nfor = 1\nprobability = 2', (4, "fault[0].probability"), "out of range", "at most 1"),
        ('[[fault]]\nkind = "cut"\nfor = 1\ndirection = "in"', (4, "fault[0].direction"), "'in' is not known", "both"),
        ('[[fault]]\nkind = "cut"\nfor = 1\nwhen = 1', (4, "fault[0].when"), "unknown key 'when'", "write"),
        ('seeds = 1\n[[fault]]\nkind = "cut"\nfor = 1', (1, "seeds"), "unknown key 'seeds'", "write seed"),
        ('[[fault]]\nkind = "cut"\nfor = 2\nevery = 1', (4, "fault[0].every"), "while it still lasts", "above"),
        ('[[fault]]\ndevice = "pres"\nkind = "cut"\nfor = 2', (2, "fault[0].device"), "no device is called", "press"),
        ('[[fault]]\ndevice = "serial"\nkind = "cut"\nfor = 2', (2, "fault[0].device"), "has no TCP line", "opc.tcp"),
        ("[fault]\n", (1, "fault"), "a table where a list of tables is wanted", "write [[fault]]"),
        ("[[fault]\n", (1, "(syntax)"), "not TOML", "write"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(
    tmp_path: Path, text: str, place: tuple[int | None, str], message: str, hint: str
) -> None:
    file = tmp_path / "faults.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as found:
        load(file, config.load(plant(tmp_path).path))
    [problem] = found.value.problems
    assert (problem.file, problem.line, problem.field) == (str(file), *place)
    assert message in problem.message
    assert hint in problem.hint


def test_a_wrong_file_ends_the_command_with_2(tmp_path: Path) -> None:
    made = plant(tmp_path)
    done = headrace("simulate", str(made.path), "--faults", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    assert "there is no such file" in done.stderr


def test_the_newest_of_faults_that_overlap_acts() -> None:
    class Told(Proxy):
        def __init__(self) -> None:
            super().__init__("127.0.0.1", 0, ("127.0.0.1", 1))
            self.told: list[Fault | None] = []

        async def apply(self, fault: Fault | None) -> None:
            self.told.append(fault)

    async def act() -> list[Fault | None]:
        proxy = Told()
        line = Line(proxy)
        for change, fault in (
            (line.begin, a),
            (line.begin, b),
            (line.begin, c),
            (line.end, b),
            (line.end, c),
            (line.end, a),
        ):
            await change(fault)
        return proxy.told

    a, b, c = Fault(Kind.DELAY), Fault(Kind.STALL, Way.UP), Fault(Kind.CUT)
    assert asyncio.run(act()) == [a, b, c, a, None]


async def test_a_kind_of_another_part_has_its_own_maker(monkeypatch: pytest.MonkeyPatch) -> None:
    """As virtual devices that misbehave by themselves will have."""
    monkeypatch.setitem(faults.KINDS, "sulk", "device")
    began: list[float] = []
    done = asyncio.Event()

    class Sulk:
        def __init__(self, name: str, table: FaultTable) -> None:
            assert (name, table.kind, table.lasts) == ("press1", "sulk", 0.05)

        async def begin(self) -> None:
            began.append(asyncio.get_running_loop().time())

        async def end(self) -> None:
            if len(began) == 3:
                done.set()

    table = FaultTable.model_validate({"kind": "sulk", "for": "50ms", "every": "100ms"})
    schedule = Schedule(Faults(1, [(table, ("press1",))]), {"device": Sulk})
    running = asyncio.create_task(schedule.run())
    async with asyncio.timeout(40):
        await done.wait()
    running.cancel()
    assert schedule.facts() == {"faults_begun": 3, "faults_ended": 3}
    assert began[2] - began[0] >= 0.1  # asked: 0.2, but the first may be late


def test_chance_repeats_itself() -> None:
    assert seeds(7, "press1") == seeds(7, "press1")
    assert len({seeds(7, "press1"), seeds(8, "press1"), seeds(7, "press2")}) == 3


CHANCES = """
seed = 5
[[random]]
device = "press*"
every = "300ms"
for = "200ms"
kinds = ["busy", "frozen", "reboot", "split"]
[[random]]
device = "furnace"
every = "300ms"
for = "200ms"
"""


def test_chance_repeats_itself_and_gives_a_device_what_it_can_have(tmp_path: Path) -> None:
    found = config.load(plant(tmp_path).path)
    file = tmp_path / "chances.toml"
    file.write_text(CHANCES, encoding="utf-8")
    faults = load(file, found)
    can = {name: set(kinds) for _, name, kinds in faults.chances}
    assert can["press1"] == {"busy", "frozen", "split"}
    assert {"bad", "away", "frozen"} <= can["furnace"]
    assert can["furnace"].isdisjoint({"busy", "garbled", "reboot", "clock", "one_client"})
    assert faults.on("line") == {"press1", "press2"}

    async def act(seconds: float) -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = []

        class Noted:
            def __init__(self, name: str, table: FaultTable) -> None:
                self.what = name, table.kind
                assert 0.02 <= table.lasts <= 0.2

            async def begin(self) -> None:
                seen.append(self.what)

            async def end(self) -> None: ...

        schedule = Schedule(faults, {"line": Noted, "device": Noted})
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await schedule.run()
        return seen

    first, second = run(act(2.0)), run(act(3.0))
    for device in ("press1", "press2", "furnace"):
        one, other = ([kind for name, kind in seen if name == device] for seen in (first, second))
        assert len(one) >= 2
        assert other[: len(one)] == one
    assert [kind for name, kind in second if name == "press1"] != [kind for name, kind in second if name == "press2"]


def test_the_docs_example_of_chance_is_right(tmp_path: Path) -> None:
    file = tmp_path / "chances.toml"
    file.write_text(example(1), encoding="utf-8")
    found = load(file, config.load(plant(tmp_path).path))
    assert [(name, kinds) for _, name, kinds in found.chances] == [
        (name, ("away", "slow", "frozen", "stall")) for name in ("press1", "press2")
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[random]]\nevery = "1s"\nfor = "1s"\nkinds = ["awya"]', "random[0].kinds[0]"),
        ('[[random]]\ndevice = "oven"\nevery = "1s"\nfor = "1s"', "random[0].device"),
        ('[[random]]\ndevice = "furnace"\nevery = "1s"\nfor = "1s"\nkinds = ["busy"]', "random[0].kinds"),
        ('[[random]]\nfor = "1s"', "random[0].every"),
    ],
)
def test_what_is_wrong_with_a_chance_is_said(text: str, said: str, tmp_path: Path) -> None:
    found = config.load(plant(tmp_path).path)
    file = tmp_path / "chances.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(file, found)
    assert said in [problem.field for problem in caught.value.problems]
