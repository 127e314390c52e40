"""Secured lines to two servers of other people: every policy and identity; unknown and renewed certificates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.pki.certificate import fingerprint, grouped
from agent.pki.own import YEARS, Own
from agent.pki.store import Store
from tests.opcua_plant import Committed
from tests.peers.process import free_port
from tests.peers.servers import OPCUA_NAMESPACE, AsyncOpcUaServer, NodeOpcUaServer
from tests.pki_rig import der, equip, put
from tests.rig import Command, Device, Plant, agent, headrace, until

pytestmark = pytest.mark.timeout(180)
"""Programs start and end here again and again; each takes seconds where others keep the machine busy."""

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


class StrictNodeServer(NodeOpcUaServer):
    options = ("secure-strict",)


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

    reconnects: list[object] = []
    since: list[int] = []

    def renewed() -> bool:
        """Each of them twice, without one that was lost: on a busy machine keys expire while all begin at once."""
        nonlocal reconnects, since
        facts = device_facts(process).values()
        if len(facts) < len(LINES) or not all(each["connected"] for each in facts):
            return False
        counts = [int(str(each.get("channel_renewals", 0))) for each in facts]
        if reconnects != (now := [each["reconnects"] for each in facts]):
            reconnects, since = now, counts
        return min(now - then for now, then in zip(counts, since, strict=True)) >= 2 and sum(counts) >= 30

    until(renewed, 120, str(process.log))
    print("reconnects:", reconnects)
    process.stop()
    found = Committed.of(plant)
    assert {name: found.faults(at) for at, name in enumerate(LINES)} == dict.fromkeys(LINES, WHOLE)
    assert all(len(found.counted(at)) > 5 for at in range(len(LINES)))
    assert found.gaps == []


def trusted_by_command(url: str, *options: str) -> None:
    done = headrace("trust", url, *options)
    assert done.returncode == 0, done.stderr


def test_an_unknown_server_is_trusted_by_the_command_that_the_log_names(tmp_path: Path, running: ExitStack) -> None:
    certificate = equip(tmp_path / "server")
    server = running.enter_context(SecureRustServer(tmp_path / "server"))
    plant = secure_plant(tmp_path, server.url, {"furnace": ""})
    process = running.enter_context(agent(tmp_path, plant, "--drain", "0"))
    until(lambda: "server_refused" in process.events())
    (line,) = [each for each in process.lines() if each.get("event") == "server_refused"]
    command = str(line["message"]).partition("if it is the right one: ")[2]
    assert command == f"headrace trust {server.url} --pki {store(plant).place}"
    assert Path(line["path"]).parent.name == "rejected"

    asked = headrace("trust", server.url, str(plant.path), "--json")
    (shown,) = json.loads(asked.stdout)["certificates"]
    assert (shown["trusted"], shown["problems"], shown["fingerprint"]) == (False, [], fingerprint(certificate))
    refused = headrace("trust", server.url, str(plant.path))  # nobody answers the question
    assert refused.returncode == 1
    assert grouped(fingerprint(certificate)) in refused.stdout
    assert headrace("trust", server.url, str(plant.path), "--fingerprint", "00" * 32).returncode == 1
    trusted_by_command(*command.split()[2:], "--yes")
    until(lambda: count(plant) > 3, 10)  # and it was not started again
    assert not Path(line["path"]).exists()
    (again,) = json.loads(headrace("trust", server.url, str(plant.path), "--json").stdout)["certificates"]
    assert again["trusted"] is True

    # Taken away again, the connection ends.
    (trusted,) = (store(plant).place / "trusted").iterdir()
    trusted.unlink()
    until(lambda: "device_lost" in process.events(), 40)


def test_our_own_certificate_is_renewed_without_a_loss(tmp_path: Path, running: ExitStack) -> None:
    """It has 40 days left, so there is a new one at the next connect: which a strict server does not know, so the old
    one goes on."""
    certificate = equip(tmp_path / "server")
    plant = secure_plant(tmp_path, "opc.tcp://127.0.0.1:1", {"furnace": ""})
    home = store(plant)
    home.trust(certificate)
    own = Own(home.place, "urn:headrace:agent:test-agent")
    (old,) = own.pairs(now=datetime.now(UTC) - timedelta(days=365 * YEARS - 40))
    known = tmp_path / "server" / "pki" / "trusted" / "certs"
    put(known / "old.der", der(old.certificate))
    server = running.enter_context(StrictNodeServer(tmp_path / "server"))
    plant.path.write_text(plant.path.read_text().replace("opc.tcp://127.0.0.1:1", server.url))
    process = running.enter_context(agent(tmp_path, plant, "--drain", "0"))
    until(lambda: count(plant) > 3, 40)
    assert "own_certificate_renewed" in process.events()
    until(lambda: device_facts(process)["furnace"].get("own_certificate_days", 0) in (39, 40))
    new = own.pairs()[0]
    assert new.fingerprint != old.fingerprint
    found = Committed.of(plant)
    assert (found.faults(), found.gaps) == (WHOLE, [])
