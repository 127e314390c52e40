"""Virtual OPC UA servers as a foreign client sees them: nodes of every kind and type, endpoints, users, history."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies, uacrypto
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from agent import config
from agent.config import Config, OpcUaDevice
from agent.errors import ConfigError
from agent.model import ValueType
from simulators.mood import Ill, Wrong
from simulators.opcua_structures import VARIANTS
from simulators.oracle import Oracle
from simulators.run import Simulation
from tests.peers.process import free_port, program
from tests.pki_rig import Made, der, key_pem, put
from tests.rig import Device, Plant
from tests.test_simulators import Seen, patient, until

SEED = 4
S = 1_000_000_000
SPACE = "urn:test:oven"
KINDS = [
    "i=7", "i=4294967295", "s=Zone 1.Temp;x", "g=09087e75-8e5e-499b-954f-f2a9603db28a", "b=M/RbKBsRVkePCePcx24oRA==",
]  # fmt: skip
TYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64", "string",
    "bytes",
]  # fmt: skip


def written(
    home: Path, rows: list[str], lines: str = 'security = "None"', extra: str = "", **more: tuple[list[str], str]
) -> Config:
    """A config with one server, the oven, or some beside it."""
    header = "name,address,type,unit,low,high,scale,offset"
    devices = [
        Device(name, f'protocol = "opcua"\nurl = "opc.tcp://127.0.0.1:{free_port()}"\n{text}', each, header)
        for name, (each, text) in {"oven": (rows, lines), **more}.items()
    ]
    return config.load(Plant.write(home, "mqtt://127.0.0.1:1883", devices, extra).path)


@asynccontextmanager
async def served(found: Config, clock: Callable[[], int] = time.time_ns) -> AsyncIterator[Simulation]:
    simulation = Simulation(found, SEED, clock)
    await simulation.start()
    running = asyncio.create_task(simulation.run())
    try:
        yield simulation
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await simulation.stop()


async def read(client: Client, text: str) -> ua.DataValue:
    """By the words of an address, whose namespace is the oven's."""
    space = await client.get_namespace_index(SPACE)
    return await client.get_node(f"ns={space};{text}").read_data_value()


def at(value: ua.DataValue) -> int:
    found: Any = value.SourceTimestamp
    return int((found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)) * 1000


async def test_node_ids_of_every_kind_and_values_of_every_type(tmp_path: Path) -> None:
    rows = [f'id{n},"nsu={SPACE};{kind}",float64,,,,,' for n, kind in enumerate(KINDS)]
    rows += [f"t{n},nsu={SPACE};s={kind},{kind},,,,," for n, kind in enumerate(TYPES)]
    rows += [f"a{n},nsu={SPACE};s={kind}[],{kind}[],,,,," for n, kind in enumerate(TYPES)]
    found = written(tmp_path, rows)
    keys = [*KINDS, *(f"s={kind}" for kind in TYPES), *(f"s={kind}[]" for kind in TYPES)]
    async with served(found) as simulation, patient(found.devices[0].url) as client:
        for tag, key in zip(found.tags, keys, strict=True):
            value = await read(client, key)
            assert value.Value is not None, tag
            plain = tuple(value.Value.Value) if tag.type.is_array else value.Value.Value
            wanted = simulation.plant.raw(tag, at(value))
            assert (type(plain), plain) == (type(wanted), wanted), tag
            assert value.Value.is_array is tag.type.is_array
        space = await client.get_namespace_index(SPACE)
        array = client.get_node(f"ns={space};s=float64[]")
        assert await array.read_value_rank() == ua.ValueRank.OneDimension
        assert (await client.get_node(f"ns={space};s=bytes").read_data_type()).Identifier == ObjectIds.ByteString


async def node_opcua(url: str, names: list[str]) -> list[dict[str, Any]]:
    """What node-opcua's client reads."""
    script = Path(__file__).parent / "peers" / "node" / "opcua_client.js"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        program("node"), str(script), url, stdin=pipe, stdout=pipe, stderr=pipe
    )
    async with asyncio.timeout(40):
        output, errors = await process.communicate(json.dumps(names).encode())
    assert process.returncode == 0, errors.decode()
    found: list[dict[str, Any]] = json.loads(next(each for each in output.splitlines() if each.startswith(b"[{")))
    return found


async def test_node_opcua_reads_what_the_plant_says(tmp_path: Path) -> None:
    start = now = 1_760_000_000 * S
    rows = [f'id{n},"nsu={SPACE};{kind}",float64,,,,,' for n, kind in enumerate(KINDS)]
    rows += [f"t{n},nsu={SPACE};s={kind},{kind},,,,," for n, kind in enumerate(TYPES)]
    rows += [f"a{n},nsu={SPACE};s={kind}[],{kind}[],,,,," for n, kind in enumerate(TYPES)]
    found = written(tmp_path, rows)
    async with served(found, lambda: now) as simulation:
        now = start + 90 * S
        await until(lambda: all(each._due[0][0] > now for _, each in simulation._opcua))
        answers = await node_opcua(found.devices[0].url, [tag.address for tag in found.tags])
        oracle = Oracle(simulation.plant, found)
        for tag, answer in zip(found.tags, answers, strict=True):
            assert answer["type"] == VARIANTS[tag.type.element].name
            assert answer["array"] is tag.type.is_array
            values = [(answer["time"], answer["value"]), *((each["time"], each["value"]) for each in answer["history"])]
            for at_ms, shown in values:
                wanted = simulation.plant.raw(tag, at_ms * 1_000_000)
                each = wanted if isinstance(wanted, tuple) else (wanted,)
                assert [plainly(one, tag.type.element) for one in each] == (shown if tag.type.is_array else [shown]), (
                    tag
                )
            last = answer["time"] * 1_000_000
            changes = oracle.expected_changes(tag, max(start, last - 60 * S) - 1, last + 1)
            assert [each["time"] * 1_000_000 for each in answer["history"]] == changes


def plainly(value: Any, kind: ValueType) -> Any:
    """As the script prints it: 64 bits as text, for which JSON has no numbers in JavaScript."""
    if kind in (ValueType.INT64, ValueType.UINT64):
        return str(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


async def test_a_node_is_made_when_somebody_looks_at_it(tmp_path: Path) -> None:
    """50 servers in a process are quick to start because of it, and changes that nobody sees cost little."""
    rows = [f"x{n},nsu={SPACE};s=x{n},float64,°C,0,9,," for n in range(50)]
    found = written(tmp_path, rows)
    async with served(found) as simulation:
        [(_, server)] = simulation._opcua
        assert server._server is not None
        space: Any = server._server.iserver.aspace._nodes
        assert len(space) > 5000 + 3 * len(rows)
        assert len(space._made) < 100, "the standard's nodes that asyncua itself writes to"
        async with patient(found.devices[0].url) as client:
            assert (await read(client, "s=x7")).Value is not None
            assert sum(node.Identifier in {f"x{n}" for n in range(50)} for node in space._made) == 1
            children = await client.nodes.objects.get_children()
            folders = [each for each in children if (await each.read_browse_name()).Name == "oven"]
            variables = await folders[0].get_variables()
            assert len(variables) == len(rows)
            assert len(await client.read_values(variables)) == len(rows)


async def test_browse_paths_and_bare_indexes_lead_to_their_tags(tmp_path: Path) -> None:
    rows = [
        f"temp,nsu={SPACE};path=/Objects/Halle&.1/Ofen/Temp,float32,°C,0,900,0.1,",
        f"door,nsu={SPACE};path=/Objects/Halle&.1/Ofen/Door,bool,,,,,",
        "far,ns=5;path=/Objects/5:Far/7:Further,int16,,,,,",
        "seven,ns=4;i=7,int16,pcs,,,,",
    ]
    found = written(tmp_path, rows)
    async with served(found) as simulation, patient(found.devices[0].url) as client:
        mine = await client.get_namespace_index(SPACE)
        assert mine > 7
        ways = [[f"{mine}:Halle.1", f"{mine}:Ofen", f"{mine}:{name}"] for name in ("Temp", "Door")] + [
            ["5:Far", "7:Further"]
        ]
        for tag, way in zip(found.tags, ways, strict=False):
            node = await client.nodes.objects.get_child(way)
            value = await node.read_data_value()
            assert value.Value is not None
            assert value.Value.Value == simulation.plant.raw(tag, at(value))
        analog: Any = await client.nodes.objects.get_child(ways[0])
        assert (await analog.read_type_definition()).Identifier == ObjectIds.AnalogItemType
        parts = {
            (await each.read_browse_name()).Name: await each.read_value() for each in await analog.get_properties()
        }
        assert (parts["EURange"].Low, parts["EURange"].High) == (0, 9000), "before scaling, as the node has it"
        assert parts["EngineeringUnits"].DisplayName.Text == "°C"
        parent: Any = await analog.get_parent()
        assert (await parent.read_browse_name()).Name == "Ofen"
        counted: Any = client.get_node("ns=4;i=7")
        assert (await counted.read_type_definition()).Identifier == ObjectIds.AnalogUnitType
        folders = {(await each.read_browse_name()).Name for each in await client.nodes.objects.get_children()}
        assert {"oven", "Halle.1", "Far", "Server"} <= folders
        with pytest.raises(UaStatusCodeError):
            await counted.write_value(ua.Variant(5, ua.VariantType.Int16))


POLICIES: dict[str, Any] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
    "Basic256": security_policies.SecurityPolicyBasic256,
    "Basic128Rsa15": security_policies.SecurityPolicyBasic128Rsa15,
}


async def secured(url: str, home: Path, policy: str, mode: str) -> Client:
    made = replace(Made(), name="client", uri="urn:headrace:test:client")
    certificate = put(home / "client.der", der(made.make()))
    key = put(home / "client.pem", key_pem(made.key))
    client = patient(url)
    client.application_uri = "urn:headrace:test:client"
    await client.set_security(POLICIES[policy], str(certificate), str(key), mode=ua.MessageSecurityMode[mode])
    return client


async def offered(url: str) -> set[tuple[str, str]]:
    endpoints = await patient(url).connect_and_get_server_endpoints()
    return {(str(each.SecurityPolicyUri).rpartition("#")[2], each.SecurityMode.name) for each in endpoints}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", ["Sign", "SignAndEncrypt"])
async def test_a_server_has_the_security_of_its_config_and_no_other(policy: str, mode: str, tmp_path: Path) -> None:
    found = written(tmp_path, [f"x,nsu={SPACE};s=x,float64,,,,,"], f'security = "{policy}/{mode}"')
    url = found.devices[0].url
    async with served(found):
        assert await offered(url) == {(policy, mode)}
        async with await secured(url, tmp_path, policy, mode) as client:
            assert (await read(client, "s=x")).Value is not None
        with pytest.raises((UaError, ConnectionError, TimeoutError)):
            async with Client(url, timeout=2):
                pass


async def test_auto_is_offered_every_current_policy_and_never_none(tmp_path: Path) -> None:
    found = written(tmp_path, [f"x,nsu={SPACE};s=x,float64,,,,,"], "")
    current = ("Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss")
    async with served(found):
        assert await offered(found.devices[0].url) == {
            (each, mode) for each in current for mode in ("Sign", "SignAndEncrypt")
        }
    device = found.devices[0]
    assert isinstance(device, OpcUaDevice)
    assert len(list((device.pki / "trusted").iterdir())) == 1, "the agent of this config trusts it"
    first = (found.agent.data_dir / "simulator" / "opcua.der").read_bytes()
    async with served(found):
        assert (found.agent.data_dir / "simulator" / "opcua.der").read_bytes() == first


async def test_users_by_name_and_by_certificate(tmp_path: Path) -> None:
    user = replace(Made(), name="user", uri="urn:headrace:test:user")
    put(tmp_path / "user.der", der(user.make()))
    put(tmp_path / "user.pem", key_pem(user.key))
    policy = 'security = "Basic256Sha256/SignAndEncrypt"\n'
    row = [f"x,nsu={SPACE};s=x,float64,,,,,"]
    found = written(
        tmp_path,
        row,
        policy + 'username = "reader"\npassword = "secret"',
        dryer=(row, policy + 'user_certificate = "user.der"\nuser_key = "user.pem"'),
    )
    async with served(found):
        for name, password, fits in (("reader", "secret", True), ("reader", "wrong", False), ("x", "secret", False)):
            client = await secured(found.devices[0].url, tmp_path, "Basic256Sha256", "SignAndEncrypt")
            client.set_user(name)
            client.set_password(password)
            assert await comes_in(client) is fits, name
        assert not await comes_in(await secured(found.devices[0].url, tmp_path, "Basic256Sha256", "SignAndEncrypt"))
        for name, fits in (("user", True), ("client", False)):
            client = await secured(found.devices[1].url, tmp_path, "Basic256Sha256", "SignAndEncrypt")

            client.user_certificate = await uacrypto.load_certificate(tmp_path / f"{name}.der")
            client.user_private_key = await uacrypto.load_private_key(tmp_path / f"{name}.pem")
            assert await comes_in(client) is fits, name


def test_a_users_certificate_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    for name in ("user.der", "user.pem"):
        put(tmp_path / name, b"nothing")
    lines = 'security = "auto"\nuser_certificate = "user.der"\nuser_key = "user.pem"'
    found = written(tmp_path, [f"x,nsu={SPACE};s=x,float64,,,,,"], lines)
    with pytest.raises(ConfigError, match="oven: it can't be read as a certificate"):
        Simulation(found, SEED)


async def comes_in(client: Client) -> bool:
    try:
        await client.connect()
    except UaStatusCodeError:
        await asyncio.gather(client.disconnect(), return_exceptions=True)
        return False
    await client.disconnect()
    return True


async def test_the_history_of_a_node_is_what_it_showed(tmp_path: Path) -> None:
    start = now = 1_760_000_000 * S
    rows = [f"x,nsu={SPACE};s=x,float64,,,,,", f"on,nsu={SPACE};s=on,bool,,,,,"]
    found = written(tmp_path, rows)
    async with served(found, lambda: now) as simulation, patient(found.devices[0].url) as client:
        frozen = simulation.act("oven", Ill(Wrong.FROZEN))
        now = start + 300 * S
        await frozen.begin()
        now = start + 400 * S
        await frozen.end()
        now = start + 1200 * S
        oracle = Oracle(simulation.plant, found)
        space = await client.get_namespace_index(SPACE)

        def moment(seconds: float) -> datetime:
            return datetime.fromtimestamp(start / S + seconds, UTC)

        for tag in found.tags:
            node = client.get_node(f"ns={space};s={tag.name}")
            assert await node.read_attribute(AttributeIds.Historizing)
            for low, high in ((100, 200), (0, 1000), (290, 410)):
                seen: list[Any] = await node.read_raw_history(moment(low), moment(high))
                changes = oracle.expected_changes(tag, start + low * S - 1, start + high * S + 1)
                assert [at(each) for each in seen] == [
                    each for each in changes if not start + 300 * S <= each <= start + 400 * S
                ], f"{tag.name}, more than one answer"
                assert all(each.Value.Value == simulation.plant.raw(tag, at(each)) for each in seen)
            newest = await node.read_raw_history(None, moment(200), 5)
            assert [at(each) for each in newest] == sorted((at(each) for each in newest), reverse=True)
            assert len(newest) == 5
            assert await node.read_raw_history(moment(-500), moment(-1)) == [], "it did not run then"


async def test_a_clock_that_is_put_on_by_hours_is_followed_at_once_and_on_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine that slept: each step of the hours between would be written, for as long as that takes."""
    start = now = 1_760_000_000 * S
    found = written(tmp_path, [f"x{n},nsu={SPACE};s=x{n},float64,,,,," for n in range(50)])
    tag = found.tags[0]
    async with served(found, lambda: now) as simulation, patient(found.devices[0].url) as client:
        [(_, server)] = simulation._opcua
        now = start + 60 * S
        await until(lambda: server._due[0][0] > now)
        before = server.changes
        now = start + 10 * 3600 * S
        await until(lambda: server._due[0][0] > now)
        assert server.changes - before <= 2 * 50
        value = await read(client, "s=x0")
        assert value.Value is not None
        assert value.Value.Value == simulation.plant.raw(tag, now)
        assert start + 60 * S < at(value) <= now
        with caplog.at_level("WARNING", "headrace.simulators"):
            now = start + 9 * 3600 * S
            await until(lambda: any("set back" in each.getMessage() for each in caplog.records))
            shown = server.changes
            now += 100 * S
            await asyncio.sleep(0.2)
            assert server.changes == shown
    oracle = Oracle(simulation.plant, found, simulation.record.spells())
    owed = oracle.expected_changes(tag, start + 60 * S, start + 10 * 3600 * S)
    assert len(owed) > 1000
    [(from_ns, to_ns)] = oracle.hidden(tag)
    assert all(from_ns <= each <= to_ns for each in owed)
    assert [getattr(each, "event", "") for each in caplog.records].count("clock_set_back") == 1


SMALL = '[[simulation.device]]\nname = "ov*"\nprofile = "s7-1200"\n'


async def test_a_small_controller_says_its_limits_and_keeps_to_them(tmp_path: Path) -> None:
    rows = [f"x{n},nsu={SPACE};s=x{n},float64,,,,," for n in range(1010)]
    found = written(tmp_path, rows, extra=SMALL)
    async with served(found), patient(found.devices[0].url) as client:
        limit = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
        assert await client.get_node(ua.NodeId(ua.Int32(limit))).read_value() == 200
        space = await client.get_namespace_index(SPACE)
        nodes = [client.get_node(f"ns={space};s=x{n}") for n in range(1010)]
        with pytest.raises(UaStatusCodeError) as refused:
            await client.read_values(nodes[:201])
        assert refused.value.code == StatusCodes.BadTooManyOperations
        assert len(await client.read_values(nodes[:200])) == 200
        subscription = await client.create_subscription(20, Seen())
        assert subscription.parameters.RequestedPublishingInterval == 200, "asyncua keeps what was revised there"
        with pytest.raises(UaStatusCodeError) as refused:
            await subscription.subscribe_data_change(nodes[:201])
        assert refused.value.code == StatusCodes.BadTooManyOperations
        for at in range(0, 1000, 200):
            made: list[Any] = await subscription.subscribe_data_change(nodes[at : at + 200])
            assert all(isinstance(each, int) for each in made)
        over: list[Any] = await subscription.subscribe_data_change(nodes[1000:])
        assert {each.name for each in over} == {"BadTooManyMonitoredItems"}
        await subscription.delete()
        second = await client.create_subscription(500, Seen())
        banded: list[Any] = await second.deadband_monitor(nodes[:1], ua.Double(1.0))
        assert banded[0].name == "BadFilterNotAllowed"
        others = [patient(found.devices[0].url) for _ in range(9)]
        await asyncio.gather(*(each.connect() for each in others))
        with pytest.raises((UaError, OSError, TimeoutError)):
            await Client(found.devices[0].url, timeout=1).connect()
        await asyncio.gather(*(each.disconnect() for each in others))
