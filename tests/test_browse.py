"""`headrace browse` at servers of other people: trees, tag lists that `headrace check` takes, and large servers."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.browse import names
from tests.peers.servers import OPCUA_NAMESPACE, OPCUA_VALUES, AsyncOpcUaServer, NodeOpcUaServer
from tests.rig import Device, Plant, headrace

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

MANY = int(os.environ.get("HEADRACE_BROWSE", "2200"))


class LargeServer(NodeOpcUaServer):
    """MANY analog items, at most 50 nodes a call and two continuation points."""

    options = (f"many:{MANY}",)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LargeServer]:
    with LargeServer(tmp_path_factory.mktemp("large")) as server:
        yield server


def test_a_tag_list_that_the_check_takes(large: LargeServer, tmp_path: Path) -> None:
    device = f'protocol = "opcua"\nurl = "{large.url}"\nsecurity = "None"'
    plant = Plant.write(tmp_path, "mqtt://127.0.0.1:1883", [Device("many", device, [])])
    started = time.monotonic()
    output = ("--csv", "--output", str(tmp_path / "many.csv"))
    done = headrace("browse", large.url, *output, "--filter", "Many/*", timeout=600)
    seconds = time.monotonic() - started
    print(f"{MANY} analog items in {seconds:.1f} s")
    assert done.returncode == 0, done.stderr
    assert "the server offers no security" in done.stderr
    assert "1 variables left out" in done.stderr
    checked = headrace("check", str(plant.path), "--json")
    assert json.loads(checked.stdout)["problems"] == []
    with (tmp_path / "many.csv").open(encoding="utf-8") as file:
        rows = {row["address"]: row for row in csv.DictReader(file)}
    assert len(rows) == MANY + 2
    assert rows[f"nsu={OPCUA_NAMESPACE};s=Many;7"] == {
        "name": "Area_0.Temp_7",
        "address": f"nsu={OPCUA_NAMESPACE};s=Many;7",
        "type": "float32",
        "unit": "°C",
        "low": "-10.5",
        "high": "400",
        "description": "number 7, of many",
    }
    # An enumeration, and a type that is made from another.
    assert rows[f"nsu={OPCUA_NAMESPACE};s=State"]["type"] == "int32"
    assert rows[f"nsu={OPCUA_NAMESPACE};s=Duration"]["type"] == "float64"


def test_filters_and_forms(large: LargeServer) -> None:
    tree = headrace("browse", large.url, "--root", f"nsu={OPCUA_NAMESPACE};s=Device").stdout.splitlines()
    assert len(tree) == len(OPCUA_VALUES) + 4  # and Counter, Ramp, Bare and Bad
    assert f"Double  float64  nsu={OPCUA_NAMESPACE};s=Double" in tree
    facts = json.loads(headrace("browse", large.url, "--json", "--type", "uint64", "--type", "bool").stdout)
    assert [each["path"] for each in facts["variables"]] == ["Device/Boolean", "Device/UInt64"]
    assert facts["whole"] is True
    shallow = json.loads(headrace("browse", large.url, "--json", "--depth", "2").stdout)
    assert "Many/Duration" in {each["path"] for each in shallow["variables"]}
    assert not any("Area" in each["path"] for each in shallow["variables"])


def test_what_was_found_before_an_interrupt_is_kept(large: LargeServer, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headrace", "browse", large.url, "--csv"]
    # A file, not a pipe: nobody reads it while we wait for the first word.
    with (tmp_path / "tags.csv").open("w+", encoding="utf-8") as written:
        running = subprocess.Popen(command, stdout=written, stderr=subprocess.PIPE, text=True)
        assert running.stderr is not None
        for line in running.stderr:
            if "nodes found" in line:
                break
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
        written.seek(0)
        printed = written.read()
    if running.returncode == 1:  # else it was quicker than the signal
        assert "this is not all: it was stopped" in said
    assert printed.startswith("name,address,type")


def test_another_stack(tmp_path: Path) -> None:
    with AsyncOpcUaServer(tmp_path / "async-opcua") as server:
        done = headrace("browse", server.url, "--csv")
        assert headrace("browse", server.url, "--output", str(tmp_path / "tags.CSV")).returncode == 0
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tags.CSV").read_text(encoding="utf-8") == done.stdout
    assert f"Counter,nsu={OPCUA_NAMESPACE};s=Counter,int32,,,," in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("http://127.0.0.1:4840",), "is not an OPC UA address"),
        (("opc.tcp://127.0.0.1:4840", "--security", "high"), "is not a security policy"),
        (("opc.tcp://127.0.0.1:4840", "--root", "x"), "is not an OPC UA node id"),
        (("opc.tcp://127.0.0.1:4840", "--device", "x"), "a device of no config"),
    ],
)
def test_a_wrong_call_says_what_to_write(arguments: tuple[str, ...], says: str) -> None:
    done = headrace("browse", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_names_are_valid_short_and_all_different() -> None:
    paths = [("A", "Temp"), ("B", "Temp"), ("B", "温度"), ("B", "a b"), ("B", "a/b"), ("x" * 80,), ("C", "A.Temp")]
    assert names(paths) == ["A.Temp_1", "B.Temp", "温度", "B.a_b_1", "B.a_b_2", "x" * 64, "A.Temp"]
