"""`headrace probe`: the virtual plant and libmodbus, on every kind of line, found out without a config."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from agent.address import ModbusTable
from agent.endpoint import Endpoint, LineSettings
from agent.errors import NotConnected
from headrace.probe import facts_of, numbers
from headrace.survey import Range, Survey, merged
from simulators.modbus_image import Image
from simulators.modbus_pty import PtyServer
from simulators.modbus_server import ModbusServer
from tests.peers.process import free_port
from tests.peers.servers import COUNTER, LibmodbusServer
from tests.rig import headrace
from tests.test_peers_available import holding
from tests.test_plant import T0
from tests.test_simulated_lines import HOST, images, serving

READS = {1, 2, 3, 4, 0x2B}


def survey(url: str, units: list[int], **options: Any) -> Survey:
    return Survey(LineSettings((Endpoint.parse(url),)), units, **{"rate": 5000.0, "timeout": 0.3, **options})


def configured(image: Image, table: ModbusTable, span: Range) -> list[Range]:
    """The addresses that the device has, by its own books."""
    known = image._known[table]
    return merged((at, at) for at in range(span[0], span[1] + 1) if known[at])


class Heard(ModbusServer):
    """Notes which functions it is asked."""

    functions: set[int] = set()  # noqa: RUF012  (of this one server)

    def replies(self, frames: Any, received: bytes) -> bytes:
        self.functions.add(received[7])
        return super().replies(frames, received)


async def test_all_of_a_gateway_is_found_by_reading_only() -> None:
    units, _, _ = images()
    server = Heard(HOST, 0, units, lambda: T0)
    async with serving(server):
        look = survey(f"tcp://{HOST}:{server.port}", [0, 1, 2, 3], span=(0, 400))
        await look.run()
    assert look.complete
    assert server.functions == READS
    assert [found.unit for found in look.found] == [1, 2], "a unit that its gateway does not reach is not there"
    for found in look.found:
        image = units[found.unit]
        assert found.identification == {key: text.decode() for key, text in image.identity.items()}
        for table, each in found.tables.items():
            assert each.readable == configured(image, table, (0, 400)), table
            assert (each.unknown, each.refused) == ([], "")
    facts = facts_of(look, "x", 1.0)
    assert json.loads(json.dumps(facts))["units"][0]["identification"]["VendorName"] == "Headrace"


async def test_a_serial_line_is_found_out_although_most_units_are_silent(tmp_path: Path) -> None:
    units, _, _ = images()
    server = PtyServer(tmp_path / "ttyA", units, lambda: T0)
    async with serving(server):
        for _ in range(2):  # a pseudo-terminal keeps what its last client set
            look = survey(f"rtu://{server.path}", list(range(5)), timeout=0.3, span=(90, 130))
            await look.run()
            assert [found.unit for found in look.found] == [1, 2]
            for found in look.found:
                assert found.identification[0x06] == f"press{found.unit}"
                for table, each in found.tables.items():
                    assert each.readable == configured(units[found.unit], table, (90, 130)), table


async def test_what_was_not_looked_at_is_named() -> None:
    units, _, _ = images()
    server = ModbusServer(HOST, 0, units, lambda: T0)
    async with serving(server):
        look = survey(f"tcp://{HOST}:{server.port}", [1], span=(0, 400), budget=20, tables=[ModbusTable.IR])
        await look.run()
        (found,) = look.found
        table = found.tables[ModbusTable.IR]
        assert table.unknown[0][1] == 400
        assert all(last < table.unknown[0][0] for _, last in table.readable)
        assert server.served.requests <= 20 + 1 + 3 * 64

        began = time.monotonic()
        slow = survey(f"tcp://{HOST}:{server.port}", [1], rate=50.0, budget=20, tables=[ModbusTable.IR])
        await slow.run()
        assert time.monotonic() - began >= (slow.requests - 1) / 50.0


async def test_a_line_that_is_not_there_is_named() -> None:
    with pytest.raises(NotConnected, match="no connection to"):
        await survey(f"tcp://{HOST}:{free_port()}", [1, 2, 3]).run()


async def test_cancelling_leaves_what_was_found() -> None:
    units, _, _ = images()
    server = ModbusServer(HOST, 0, units, lambda: T0)
    async with serving(server):
        look = survey(f"tcp://{HOST}:{server.port}", [1, 2], rate=200.0, span=(0, 9999), budget=10**6)
        running = asyncio.ensure_future(look.run())
        async with asyncio.timeout(20):
            while not (look.found and ModbusTable.CO in look.found[0].tables):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert not look.complete
    assert [found.unit for found in look.found] == [1, 2]


def test_the_command_on_libmodbus(libmodbus_server: LibmodbusServer) -> None:
    where = ("probe", libmodbus_server.url, "--units", "1", "--addresses", "0-299", "--rate", "5000")
    done = headrace(*where, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["complete"]
    (unit,) = facts["units"]
    assert (unit["unit"], unit["identification"]) == (1, {})
    for table in unit["tables"].values():
        assert table == {"readable": [[0, 199]], "unknown": [], "refused": ""}
    shown = headrace(*where)
    assert "holding registers     hr:0-199" in shown.stdout
    assert "100 %" in shown.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["tpc://127.0.0.1"], 2, "is not a Modbus address"),
        (["tcp://127.0.0.1:1", "--units", "5-1"], 2, "write 1-5"),
        (["tcp://127.0.0.1:1", "--units", "300"], 2, "past 255"),
        (["tcp://127.0.0.1:1", "--addresses", "0-9,20-30"], 2, "more than one range"),
        (["tcp://127.0.0.1:1", "--tables", "hx"], 2, "write some of co,di,hr,ir"),
        (["tcp://127.0.0.1:1", "--rate", "0"], 2, "is not above zero"),
        (["rtu:///nowhere/ttyS7"], 1, "/nowhere/ttyS7"),
    ],
)
def test_a_wrong_call_says_what_to_write(words: list[str], code: int, said: str) -> None:
    done = headrace("probe", *words)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_probe_prints_what_it_found(libmodbus_server: LibmodbusServer) -> None:
    words = ["probe", libmodbus_server.url, "--units", "1", "--addresses", "0-65535", "--rate", "20", "--json"]
    command = [sys.executable, "-m", "headrace", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline, own = time.monotonic() + 45, 1
        while asked(libmodbus_server) < own + 5:  # it counts our own requests as well
            assert time.monotonic() < deadline
            time.sleep(0.05)
            own += 1
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    facts = json.loads(output)
    assert process.returncode == 1
    assert not facts["complete"]
    assert [unit["unit"] for unit in facts["units"]] == [1]
    assert "interrupted: this is what was found until then" in errors
    assert "Traceback" not in errors


def asked(server: LibmodbusServer) -> int:
    """How many holding register requests it had, by its own count."""
    return int.from_bytes(holding(server, COUNTER, 1), "big")


def test_numbers_as_people_write_them() -> None:
    assert numbers("1-3,7, 2", 255) == [1, 2, 3, 7]
    for wrong in ("", "a", "1-", "-1", "1,,2", "²"):
        with pytest.raises(ValueError, match="write 1-247"):
            numbers(wrong, 255)
