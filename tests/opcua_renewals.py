"""`make soak-opcua`: secure channels renewed again and again under load, until there were HEADRACE_RENEWALS of them.

Eight devices, of every policy and mode, each read 100 changes a second; their keys last three seconds. No change may be
lost, no connection may break, and the channel's renewals are counted. The last result is in docs/opcua-security.md.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

from tests.opcua_plant import Committed
from tests.peers.servers import OPCUA_NAMESPACE
from tests.pki_rig import equip
from tests.rig import agent, until
from tests.test_opcua_security import LINES, WHOLE, SecureRustServer, device_facts, secure_plant, store

RENEWALS = int(os.environ.get("HEADRACE_RENEWALS", "1000"))
DEVICES = {name: line for name, line in LINES.items() if "user" not in line}
LIFETIME = "3s"


def test_renewals(tmp_path: Path) -> None:
    certificate = equip(tmp_path / "server")
    with ExitStack() as running:
        server = running.enter_context(SecureRustServer(tmp_path / "server"))
        plant = secure_plant(tmp_path, server.url, DEVICES, f'channel_lifetime = "{LIFETIME}"')
        # Queues for a minute of 100 changes a second, and patience with a machine that has other work as well.
        text = plant.path.read_text().replace('keep_alive = "1s"', 'keep_alive = "10s"\noutage = "300s"')
        plant.path.write_text(text)
        for name in DEVICES:
            tags = f"name,address,type\nFast,nsu={OPCUA_NAMESPACE};s=Fast,int32\n"
            (tmp_path / f"{name}.csv").write_text(tags, encoding="utf-8")
        store(plant).trust(certificate)
        process = running.enter_context(agent(tmp_path, plant, "--drain", "0"))

        def renewed() -> int:
            return sum(int(str(facts.get("channel_renewals", 0))) for facts in device_facts(process).values())

        started = time.monotonic()
        until(lambda: renewed() >= RENEWALS, 60 + RENEWALS * 2)
        seconds = time.monotonic() - started
        process.stop()
        found = Committed.of(plant)
        faults = {name: found.faults(at, 10_000_000) for at, name in enumerate(DEVICES)}
        values = sum(len(found.counted(at)) for at in range(len(DEVICES)))
        breaks = {name: facts["reconnects"] for name, facts in device_facts(process).items()}
        lost = sum(len(each["lost"]) for each in faults.values())
        text = f"{renewed()} renewals in {seconds:.0f} s, {values} values, {lost} lost, {breaks} reconnects"
        print("\n" + text)
        assert faults == dict.fromkeys(DEVICES, WHOLE)
        assert found.gaps == []
        assert breaks == dict.fromkeys(DEVICES, 0)
