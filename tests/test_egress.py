"""What may leave leaves, and nothing else: every byte that a real agent sends to a real broker is looked at."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import pytest

from agent.config import check
from tests.capture import Capture
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Json, Plant, agent, data_center, simulator, until

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

HEADER = "name,address,type,order,level,domain"
ROWS = ["temp,hr:0,float32,,1,", "count,hr:2,uint32,CDAB,2,", "recipe,hr:4,float32,,3,rd"]
SECRET = "88.118.8/press.recipe"
DENY = '\n[egress]\n[[egress.rule]]\naction = "deny"\nlevels = [3]\n'


def press(rows: list[str] = ROWS) -> Device:
    lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "50ms"'
    return Device("press", lines, rows, HEADER)


def plant_of(home: Path, port: int, extra: str = "") -> Plant:
    return Plant.write(home, f"mqtt://127.0.0.1:{port}", [press()], f'mqtt = "3.1.1"{extra}')


def last(process: object) -> Json:
    lines = [line for line in process.lines() if "egress" in line]  # type: ignore[attr-defined]
    return lines[-1] if lines else {}


def in_force(home: Path) -> bool:
    """Whether a changed policy holds: it is taken from the block on that is the next when it has been worked out."""
    ledgers = (home / "agent" / "audit").glob("configuration-*.jsonl")
    return any('"kind":"epoch"' in path.read_text() for path in ledgers)


def test_a_denied_tag_is_in_no_byte_and_no_block_mixes_levels(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with Capture(mosquitto.port) as wire:
        # Without a data center: what the broker has acknowledged is done with, and is not sent again.
        plant = plant_of(tmp_path, wire.port, f'\nconfirm = "broker"{DENY}')
        with simulator(tmp_path, plant), agent(tmp_path, plant, "--drain", "30") as process:
            until(lambda: len(wire.readings()["88.118.8/press.count"]) > 20)
            process.stop()
            facts = last(process)["egress"]
        found = wire.readings()
        assert set(found) == {"88.118.8/press.temp", "88.118.8/press.count"}
        everything = b"".join(bytes(stream) for stream in wire.sent)
        assert SECRET.encode() not in everything
        assert b"recipe" not in everything
    assert facts["withheld_by"].keys() == {"rule 1"}
    assert facts["withheld"] >= 20
    assert facts["allowed"] == sum(len(readings) for readings in found.values())
    assert facts["allowed_by"].keys() == {"main, level 1", "main, level 2"}


def test_a_new_policy_holds_from_the_next_block_on(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with Capture(mosquitto.port) as wire:
        plant = plant_of(tmp_path, wire.port)
        with (
            simulator(tmp_path, plant),
            data_center(tmp_path, plant),
            agent(tmp_path, plant, "--drain", "30") as process,
        ):
            until(lambda: len(wire.readings()[SECRET]) > 10)
            text = plant.path.read_text()
            plant.path.write_text(text + DENY)
            os.kill(process.pid, signal.SIGHUP)
            until(lambda: in_force(tmp_path))
            assert "config_reloaded" in process.events()
            reloaded = time.time_ns()
            others = len(wire.readings()["88.118.8/press.temp"])
            until(lambda: len(wire.readings()["88.118.8/press.temp"]) > others + 20)
            before = wire.readings()[SECRET]
            # At most what was pushed before the new epoch began.
            assert max(time_ns for time_ns, _ in before) < reloaded
            plant.path.write_text(text.replace('id = "test-agent"', 'id = "other"'))
            os.kill(process.pid, signal.SIGHUP)
            until(lambda: "config_refused" in process.events())
            plant.path.write_text(text)
            os.kill(process.pid, signal.SIGHUP)
            until(lambda: len(wire.readings()[SECRET]) > len(before) + 10)
            process.stop()
            facts = last(process)
            summary = plant.summary()
        # Nothing was lost on any of the changes: what was accepted is stored, or withheld and counted.
        egress = facts["egress"]
        assert facts["accepted"] == egress["allowed"] + egress["withheld"]
        assert summary["readings"] + egress["withheld_on_the_way"] == egress["allowed"]
        temp = [time_ns for time_ns, _ in sorted(set(wire.readings()["88.118.8/press.temp"]))]
        assert max(b - a for a, b in itertools.pairwise(temp)) < 15_000_000_000


def test_what_waits_is_judged_by_the_policy_of_now(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with Capture(mosquitto.port) as wire:
        plant = plant_of(tmp_path, wire.port)
        rows = [f"{row.rsplit(',', 2)[0]},1," for row in ROWS]
        (tmp_path / "press.csv").write_text("\n".join([HEADER, *rows]) + "\n")
        mosquitto.stop()
        with (
            simulator(tmp_path, plant),
            data_center(tmp_path, plant),
            agent(tmp_path, plant, "--drain", "40") as process,
        ):
            until(lambda: (seen := last(process)) and seen["outbox"]["readings"] > 40)
            rule = f'\n[egress]\n[[egress.rule]]\naction = "deny"\nidentifiers = ["{SECRET}"]\n'
            plant.path.write_text(plant.path.read_text() + rule)
            os.kill(process.pid, signal.SIGHUP)
            until(lambda: in_force(tmp_path))
            mosquitto.start()
            until(lambda: len(wire.readings()["88.118.8/press.temp"]) > 30)
            process.stop()
            facts = last(process)
            summary = plant.summary()
        assert SECRET not in wire.readings()
        assert b"recipe" not in b"".join(bytes(stream) for stream in wire.sent)
    egress = facts["egress"]
    assert egress["withheld_on_the_way"] > 10
    assert summary["readings"] == egress["allowed"] - egress["withheld_on_the_way"]


def test_level_3_has_a_broker_of_its_own(tmp_path: Path, mosquitto: Mosquitto) -> None:
    with Mosquitto(tmp_path / "inner") as inner, Capture(mosquitto.port) as outside, Capture(inner.port) as inside:
        extra = f'\n[egress]\nlevel3 = {{ url = "mqtt://127.0.0.1:{inside.port}", mqtt = "3.1.1" }}\n'
        plant = plant_of(tmp_path, outside.port, extra)
        with simulator(tmp_path, plant), agent(tmp_path, plant):
            until(lambda: len(inside.readings()[SECRET]) > 10)
            until(lambda: len(outside.readings()["88.118.8/press.temp"]) > 10)
        assert set(inside.readings()) == {SECRET}
        assert SECRET not in outside.readings()
        assert b"recipe" not in b"".join(bytes(stream) for stream in outside.sent)
        assert (tmp_path / "agent" / "level3" / "outbox.db").exists()


@pytest.mark.parametrize(
    ("extra", "problem", "warning"),
    [
        ("[egress]\ntls_from_level = 2", "2 tags of level 2 or more would leave without TLS", None),
        ('country = "DE"\n[labels]\ncategory = "important"', None, "3 of 3 tags may not leave (important data stays"),
        ('country = "DE"\n[labels]\ncategory = "general"', None, None),
        ('country = "CN"\n[labels]\ncategory = "core"', None, None),
        ('country = "Germany"', "'Germany' is not a country", None),
        ('[egress]\ndefault = "deny"', None, "3 of 3 tags may not leave (no rule allows it)"),
        ('[egress]\n[[egress.rule]]\naction = "deny"\ndomains = ["研发"]', None, "1 of 3 tags may not leave (rule 1)"),
        ('[egress]\n[[egress.rule]]\naction = "deny"\ndomains = ["fun"]', "'fun' is not a domain", None),
        ("[egress]\n[[egress.rule]]\naction = 'deny'\nlevels = [4]", "4 is not a level", None),
        ('[audit]\nkeep = "179d"', "records kept for 179 days", None),
        ('[egress]\nlevel3 = { url = "mqtt://127.0.0.1:1883" }', "the broker that everything else has", None),
        (
            '[egress.level3]\nurl = "mqtts://inner:8883"\nca = "inner.pem"\n[labels]\nlevel = 3',
            "there is no file",
            None,
        ),
        (
            '[egress.level3]\nurl = "mqtt://who:s3cret@inner:1883"\n[labels]\nlevel = 3',
            "the password would cross the line unencrypted",
            None,
        ),
        ("[labels]\nrequired = true", "2 tags have no domain or no level", None),
        ('[labels]\nrequired = true\ndomain = "生产"', None, None),
    ],
)
def test_what_the_check_says(tmp_path: Path, extra: str, problem: str | None, warning: str | None) -> None:
    plant = plant_of(tmp_path, 1883, f"\n{extra}\n")
    found = check(plant.path)
    messages = [each.message for each in found.problems]
    assert [(problem or "") in text for text in messages] == ([True] if problem else []), messages
    texts = [each.message for each in found.warnings if each.field.startswith("egress")]
    assert [(warning or "") in text for text in texts] == ([True] if warning else []), texts
