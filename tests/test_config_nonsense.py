"""Nonsense in every field of a config: each time a problem with its line and words of our own, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from agent.config import TABLES, check
from agent.sharing import Rule
from agent.simulation import State
from agent.tables import Uplink
from tests.test_config import FURNACE, PRESS

NONSENSE = (
    *('"nonsense"', '""', "-1", "0", "1.5", "true", "[]", "{}", "[[]]", "[{}]", '["a"]', "1979-05-27", '"１００ms"'),
    *("nan", "inf", "99999999999999999999", '"127.0.0.1"', '"tcp://"', '"\\u0000"'),
    *(f'"{"x" * 600}"', "[" + '"a", ' * 300 + "]"),
)
BEFORE = {
    "modbus": '[[device]]\nprotocol = "modbus"\nname = "q"\nurl = "tcp://127.0.0.1:5021"\ntags = "press1.csv"\n',
    "opcua": '[[device]]\nprotocol = "opcua"\nname = "q"\nurl = "opc.tcp://127.0.0.1:4841"\ntags = "furnace.csv"\n',
    "egress.level3": '[egress.level3]\nurl = "mqtts://inner:8883"\n',
    "egress.rule": '[[egress.rule]]\naction = "deny"\n',
    "simulation.signal": '[[simulation.signal]]\ntags = "*"\nshape = "noise"\n',
    "simulation.device": '[[simulation.device]]\nname = "*"\nprofile = "s7-1200"\n',
    "simulation.signal.states": '[[simulation.signal]]\ntags = "*"\nshape = "states"\n[[simulation.signal.states]]\n'
    'value = 1\nfor = "2s"\n',
    "agent": '[agent]\nid = "a"\ndata_dir = "./var"\n',
    "datacenter": '[datacenter]\nstore = "./store"\n',
    "resolver": '[resolver]\nurl = "http://127.0.0.1:8000"\n',
}
MODELS: dict[str, type[BaseModel]] = {
    **TABLES,
    "egress.level3": Uplink,
    "egress.rule": Rule,
    "simulation.signal.states": State,
}


def nonsense(table: str, model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """(key, a config that has nonsense there)."""
    head = BEFORE.get(table, f"[{table}]\n")
    around = "".join(BEFORE[name] for name in ("agent", "datacenter") if name != table)
    around += "" if table == "uplink" else '[uplink]\nurl = "mqtt://127.0.0.1:1883"\n'
    for key in (field.alias or name for name, field in model.model_fields.items()):
        rest = "".join(f"{line}\n" for line in head.splitlines() if not line.startswith(f"{key} = "))
        for value in NONSENSE:
            yield key, f"{around}{rest}{key} = {value}\n"


@pytest.mark.parametrize(("table", "model"), MODELS.items(), ids=list(MODELS))
def test_every_field_says_what_it_wants(tmp_path: Path, table: str, model: type[BaseModel]) -> None:
    (tmp_path / "press1.csv").write_text(PRESS, encoding="utf-8")
    (tmp_path / "furnace.csv").write_text(FURNACE, encoding="utf-8")
    path = tmp_path / "plant.toml"
    unclear: list[Any] = []
    for key, text in nonsense(table, model):
        path.write_text(text, encoding="utf-8")
        for each in check(path).problems:
            foreign = "nput should" in each.message or "should have" in each.message or "config.schema" in each.hint
            if foreign or not each.hint.startswith(("write ", "did you mean ")) or each.line is None:
                unclear.append((key, text.rpartition(f"{key} = ")[2].strip(), str(each)))
    assert unclear == []
