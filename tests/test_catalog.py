"""Catalogs, labels and the agent's ledgers: what the config, the commands and a running agent say of the same tags."""

from __future__ import annotations

import json
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from agent import units
from agent.audit import verify
from agent.config import check, load
from agent.wire import Catalog, CatalogTag, epoch_of
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port, program
from tests.rig import Device, Plant, agent, headrace, simulator, until

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

ROOT = Path(__file__).parent.parent
HEAD = "name,address,type,unit,identifier,redundant,domain,level,category"
TOML = """
[agent]
id = "a"
data_dir = "./var"
[identifiers]
prefix = "88.118.8"
[uplink]
url = "mqtt://127.0.0.1:1883"
[labels]
domain = "生产"
level = 1
[[device]]
name = "press"
protocol = "modbus"
url = "tcp://127.0.0.1:5020"
tags = "press.csv"
level = 2
category = "重要"
product = { product_name = "hydraulic press", product_model = "HP-250", manufacturer_name = "Example Works" }
[[device]]
name = "mixer"
protocol = "modbus"
url = "tcp://127.0.0.1:5021"
tags = "mixer.csv"
"""


def written(home: Path, press: str, mixer: str = "speed,hr:0,float32,r/min,,,,,") -> Path:
    (home / "press.csv").write_text(f"{HEAD}\n{press}\n", encoding="utf-8")
    (home / "mixer.csv").write_text(f"{HEAD}\n{mixer}\n", encoding="utf-8")
    (home / "plant.toml").write_text(TOML, encoding="utf-8")
    return home / "plant.toml"


def test_labels_are_inherited_from_agent_to_device_to_tag(tmp_path: Path) -> None:
    path = written(tmp_path, "temp,hr:0,float32,°C,,,,,\nrecipe,hr:2,float32,,,,研发数据域,三级,核心数据")
    tags = {tag.name: (tag.domain, tag.level, tag.category) for tag in load(path).tags}
    assert tags == {
        "temp": ("production", 2, "important"),
        "recipe": ("rd", 3, "core"),
        "speed": ("production", 1, ""),
    }
    found = json.loads(headrace("labels", str(path), "--json").stdout)
    assert [row["tags"] for row in found["summary"]] == [1, 1, 1]
    assert "recipe" in headrace("labels", str(path), "--format", "csv").stdout
    assert "三级" in headrace("labels", str(path)).stdout


def test_level_3_is_the_strictest_in_every_text() -> None:
    """A published vendor page has it upside down."""
    assert "3 is the most sensitive" in (ROOT / "agent" / "labels.py").read_text()
    assert "3 is the most sensitive" in (ROOT / "docs" / "catalog.schema.json").read_text()


@pytest.mark.parametrize(
    ("press", "problem"),
    [
        ("a,hr:0,float32,,88.1/x,,,,\nb,hr:2,float32,,88.1/x,,,,", "is taken by"),
        ("a,hr:0,float32,,10.ABC/x,,,,\nb,hr:2,float32,,hdl:10.abc/x,,,,", "which is written '10.ABC/x' there"),
        ("a,hr:0,float32,,88.1/x,yes,,,\nb,hr:2,float32,,88.1/x,,,,", "is taken by"),
        ("a,hr:0,float32,,88.1/x,yes,,,\nb,hr:2,float32,,88.1/x,yes,,,", None),
        ("a,hr:0,float32,,1.2.0156,,,,", None),
        ("a,hr:0,float32,,88.1/x,maybe,,,", "is neither yes nor no"),
        ("a,hr:0,float32,,,,,4,", "is not a level"),
        ("a,hr:0,float32,,,,fun,,", "is not a domain"),
    ],
)
def test_one_item_has_one_source(tmp_path: Path, press: str, problem: str | None) -> None:
    found = check(written(tmp_path, press))
    messages = [each.message for each in found.problems]
    assert [(problem or "") in text for text in messages] == ([True] if problem else []), messages


def test_a_text_of_no_known_scheme_is_kept_and_told(tmp_path: Path) -> None:
    found = check(written(tmp_path, "a,hr:0,float32,,Press temp,,,,\nb,hr:2,float32,,Other thing,,,,"))
    assert found.config is not None
    assert found.config.tags[0].identifier == "Press temp"
    [warning] = [each for each in found.warnings if each.field == "identifier"]
    assert "of no known scheme, and 1 more like it" in warning.message
    assert warning.line == 2


def test_the_catalog_command_gives_what_the_published_schema_says(tmp_path: Path) -> None:
    path = written(tmp_path, "temp,hr:0,float32,°C,,,,,\nrecipe,hr:2,float32,,88.118.8/EQ#01 ?,,rd,3,core")
    path.write_text(path.read_text(encoding="utf-8") + '[datacenter]\nstore = "./store"\n', encoding="utf-8")
    found = json.loads(headrace("catalog", str(path), "--json").stdout)
    epoch = found.pop("epoch")
    schema = json.loads((ROOT / "docs" / "catalog.schema.json").read_text())
    assert list(wrong(found, schema, "")) == []
    assert set(schema["properties"]["tags"]["items"]["properties"]) == {each.name for each in fields(CatalogTag)}
    assert found["products"]["press"]["product_model"] == "HP-250"
    assert [tag.get("unit_code") for tag in found["tags"]] == ["CEL", None, "RPM"]
    body = load(path).catalog().encode()
    assert epoch == f"{epoch_of(body):016x}"
    assert Catalog.decode(body).encode() == body
    entries = json.loads(headrace("catalog", str(path), "--json", "--format", "gbt21063").stdout)["entries"]
    assert entries[1]["信息资源分类"] == {"类": "工业数据", "数据域": "研发数据域", "级别": "三级", "类别": "核心数据"}
    assert entries[1]["信息资源标识符"] == "88.118.8/EQ#01 ?"
    assert entries[1]["在线资源链接地址"].endswith("/api/handles/88.118.8/EQ%2301%20%3F")


def wrong(value: Any, schema: dict[str, Any], place: str) -> list[str]:
    """What of a value does not fit; of JSON Schema as much as ours uses."""
    found = []
    kinds: dict[str, Any] = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return [f"{place}: not of type {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{place}: {value!r} is not one of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{place}: {value!r}")
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        found += [f"{place}: no {name}" for name in schema.get("required", []) if name not in value]
        for name, each in value.items():
            if name not in known and others is False:
                found.append(f"{place}: unknown {name}")
            else:
                found += wrong(each, known.get(name, others or {}), f"{place}.{name}")
    if isinstance(value, list):
        for at, each in enumerate(value):
            found += wrong(each, schema.get("items", {}), f"{place}[{at}]")
    return found


def test_unit_codes_are_those_of_another_opc_ua_stack() -> None:
    script = (
        "const u = require('node-opcua-data-access').standardUnits;"
        "for (const k in u) console.log(u[k].unitId + '\\t' + u[k].displayName.text)"
    )
    peers = ROOT / "tests" / "peers" / "node"
    found = subprocess.run([program("node"), "-e", script], cwd=peers, capture_output=True, text=True, timeout=30)
    theirs = [line.split("\t") for line in found.stdout.splitlines()]
    both = {unit: int(number) for number, unit in theirs if units.code(unit)}
    assert len(both) >= 15
    assert {unit: units.unit_id(units.code(unit)) for unit in both} == both


def test_resolve_says_what_an_identifier_is(tmp_path: Path) -> None:
    done = headrace("resolve", "hdl:88.118.8/press#1 泵", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert (found["scheme"], found["path"], found["state"]) == ("handle", "88.118.8/press%231%20%E6%B3%B5", "static")
    assert headrace("resolve", "88..1/x").returncode == 2
    away = headrace("resolve", "88.1/x", "--url", f"http://127.0.0.1:{free_port()}", "--json")
    assert (away.returncode, json.loads(away.stdout)["state"]) == (1, "unresolved")


def test_a_simulated_resolver_answers_for_the_config(tmp_path: Path) -> None:
    devices = [Device("press", f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"', ["temp,hr:0,float32,"])]
    extra = f'\n[resolver]\nurl = "http://127.0.0.1:{free_port()}"\nmode = "strict"\n'
    plant = Plant.write(tmp_path, "mqtt://127.0.0.1:1", devices, extra)
    with simulator(tmp_path, plant, 1, "--resolver"):
        done = headrace("resolve", "88.118.8/press.temp", "--config", str(plant.path), "--json")
        assert (done.returncode, json.loads(done.stdout)["facts"]["name_en"]) == (0, "press temp")
        assert headrace("resolve", "88.118.8/none", "--config", str(plant.path)).returncode == 1
    with simulator(tmp_path, plant, 1, "--resolver", "wrong"):
        done = headrace("resolve", "88.118.8/press.temp", "--config", str(plant.path), "--json")
        assert (done.returncode, json.loads(done.stdout)["state"]) == (1, "refused")
        # Mode strict: nothing is collected before everything has been resolved once.
        run = headrace("run", str(plant.path), timeout=40)
        assert run.returncode == 1
        assert "is not resolved" in run.stderr or "are not resolved" in run.stderr


def test_the_ledgers_tell_what_an_agent_did(tmp_path: Path, mosquitto: Mosquitto) -> None:
    lines = f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "50ms"'
    device = Device("press", lines, ["temp,hr:0,float32,,1", "recipe,hr:2,float32,,3"], "name,address,type,order,level")
    deny = '\n[egress]\n[[egress.rule]]\naction = "deny"\nlevels = [3]\n'
    plant = Plant.write(tmp_path, mosquitto.url, [device], deny)
    with simulator(tmp_path, plant), agent(tmp_path, plant) as process:
        until(lambda: any(line.get("accepted", 0) > 50 for line in process.lines()))
        process.stop()
        last = [line for line in process.lines() if "egress" in line][-1]
    folder = tmp_path / "agent" / "audit"
    found = {}
    for name in ("collection", "egress", "configuration"):
        assert verify(folder, name).sound
        text = "".join(path.read_text() for path in sorted(folder.glob(f"{name}-*.jsonl")))
        found[name] = [json.loads(line) for line in text.splitlines()]
    assert [record["kind"] for record in found["configuration"]] == ["started", "stopped"]
    by_kind = {record["kind"]: record for record in found["egress"]}
    assert by_kind["withheld"]["readings"] == last["egress"]["withheld"]
    assert by_kind["allowed"]["readings"] == last["egress"]["allowed"]
    assert by_kind["withheld"]["reason"] == "rule 1"
    assert {record["level"] for record in found["collection"]} == {1, None}
    assert found["collection"][0]["sources"] == [{"device": "press", "protocol": "modbus", "tags": 2}]
