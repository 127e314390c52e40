"""Secured lines to two servers of other people: every policy and identity; unknown and renewed certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.pki.store import Store
from tests.opcua_rig import Committed
from tests.peers.process import free_port
from tests.peers.servers import OPCUA_NAMESPACE, AsyncOpcUaServer, NodeOpcUaServer
from tests.pki_rig import equip
from tests.rig import Command, Device, Plant, agent, until

WHOLE: dict[str, list[int]] = {"lost": [], "doubled": [], "wrong": []}
POLICIES = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
NAME = 'username = "reader"\npassword = "s3cret"'
LINES = {
    **{
        f"{policy}-{mode}": f'security = "{policy}/{mode}"'
        for policy in POLICIES
        for mode in ("Sign", "SignAndEncrypt")
    },
    "auto": 'security = "auto"',
    "name": NAME,
    "name-signed": f'security = "Aes128_Sha256_RsaOaep/Sign"\n{NAME}',
    "certificate": 'user_certificate = "user.der"\nuser_key = "user.pem"',
}
"""One device each."""


class SecureNodeServer(NodeOpcUaServer):
    options = ("secure",)


class SecureRustServer(AsyncOpcUaServer):
    options = ("secure",)


Server = SecureNodeServer | SecureRustServer


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def secure_plant(home: Path, url: str, lines: dict[str, str], more: str = "") -> Plant:
    """An agent with a device for each of `lines`: all count what the server counts."""
    common = f'protocol = "opcua"\nurl = "{url}"\npublish = "200ms"\nsampling = "every change"\nkeep_alive = "1s"'
    rows = [f"Counter,nsu={OPCUA_NAMESPACE};s=Counter,int32,"]
    devices = [Device(name, f"{common}\n{line}\n{more}", rows) for name, line in lines.items()]
    return Plant.write(home, f"mqtt://127.0.0.1:{free_port()}", devices)


def store(plant: Plant) -> Store:
    return Store(plant.path.parent / "agent" / "pki")


def count(plant: Plant, tag: int = 0) -> int:
    return len(Committed.of(plant).counted(tag))


def device_facts(process: Command) -> dict[str, dict[str, object]]:
    lines = [line for line in process.lines() if "devices" in line]
    return dict(lines[-1]["devices"]) if lines else {}


@pytest.mark.parametrize(("kind", "lifetime"), [(SecureNodeServer, "5s"), (SecureRustServer, "3s")])
def test_every_policy_and_identity_with_channels_renewed_all_the_time(
    tmp_path: Path, running: ExitStack, kind: type[Server], lifetime: str
) -> None:
    certificate = equip(tmp_path / "server")
    for name in ("user.der", "user.pem"):
        (tmp_path / name).write_bytes((tmp_path / "server" / name).read_bytes())
    server = running.enter_context(kind(tmp_path / "server"))
    # All handshakes at once take two processors a while: keys of less than that would expire before they are used.
    plant = secure_plant(tmp_path, server.url, LINES, f'channel_lifetime = "{lifetime}"')
    store(plant).trust(certificate)
    process = running.enter_context(agent(tmp_path, plant, "--drain", "0"))

    def renewed() -> bool:
        facts = device_facts(process)
        counts = [int(str(each.get("channel_renewals", 0))) for each in facts.values()]
        return len(counts) == len(LINES) and min(counts) >= 2 and sum(counts) >= 30

    until(renewed, 40, str(process.log))
    process.stop()
    found = Committed.of(plant)
    assert {name: found.faults(at) for at, name in enumerate(LINES)} == dict.fromkeys(LINES, WHOLE)
    assert all(len(found.counted(at)) > 5 for at in range(len(LINES)))
    assert found.gaps == []
    assert {name: facts["reconnects"] for name, facts in device_facts(process).items()} == dict.fromkeys(LINES, 0)
