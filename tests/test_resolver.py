"""The resolver client against a simulated node that is slow, wrong, lying, full, going in circles, or right."""

from __future__ import annotations

import asyncio
import contextlib
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agent._native import Identifier
from agent.identifiers.cache import Cache
from agent.identifiers.dialects import Dialect, HandleDialect, IdHubDialect, SnmsDialect
from agent.identifiers.facts import Resolved, bound, refusals
from agent.identifiers.node import FAILURES, Node, Unreachable
from agent.identifiers.record import LONGEST, SHORTEST, load, read
from agent.identifiers.resolver import Resolver, Unresolved
from agent.identifiers.signature import Untrue, digest, roots, signatures, signed_by
from agent.wire import CatalogTag
from simulators.records import Entry, Root
from simulators.resolver import Fault, ResolverServer
from tests.peers.brokers import Mosquitto
from tests.peers.process import free_port
from tests.rig import Device, Plant, agent, data_center, simulator, until

ID = "88.118.8/press.temp"
DESC = (
    "VGhlIEhTX0FETUlOIHR5cGUgaXMgdXNlZCB0byBzcGVjaWZ5IHRoZSBhZG1pbmlzdHJhdG9yLCBpZGVudGlmaWVkIGJ5IGFuIGlkZW50aWZpZXIg"
    "YW5kIG9mZnNldCBwb2ludGluZyB0byBpdHMgcmVzcGVjdGl2ZSBwdWJsaWMga2V5LCBhcyB3ZWxsIGFzIHRoZSBhdXRob3JpemF0aW9uKHMpIHRo"
    "YXQgYWRtaW5pc3RyYXRvciBvdmVyIHRoZSBpZGVudGlmaWVy4oCZcyByZWNvcmQgdmFsdWVzIGFuZCBwcmVmaXguCgpTZWUgMC4xMDAvRE8tSVJQ"
    "VjMuMCAoaHR0cHM6Ly9oZGwuaGFuZGxlLm5ldC8wLjEwMC9ETy1JUlBWMy4wKSBzZWN0aW9uIDQuMy4xIGZvciBhbiBpbiBkZXB0aCBkZWZpbml0"
    "aW9uLgo="
)


class Clock:
    """The wall clock, which a test may move."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Rig:
    """One simulated node and what asks it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        attributes = {"name_zh": "压机温度", "unit": "°C", "level": "2", "domain": "生产"}
        self.server = ResolverServer({"88.118.8/press.temp": Entry(ID, attributes)})
        self.clock = Clock()
        self.changes = 0
        self.open: list[Resolver] = []

    def resolver(self, dialect: Dialect | None = None, *, timeout: float = 30.0, **options: Any) -> Resolver:
        node = Node(self.server.url, rate=10_000, concurrency=4, timeout=timeout)
        cache = Cache(self.home / "resolver.db", self.server.url)

        def told() -> None:
            self.changes += 1

        found = Resolver(node, dialect or HandleDialect(), cache, told=told, clock=self.clock, **options)
        self.open.append(found)
        return found


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    await made.server.open()
    try:
        yield made
    finally:
        for each in made.open:
            await each.close()
        await made.server.close()


@contextlib.asynccontextmanager
async def running(resolver: Resolver) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(resolver.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def wait(condition: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain"
        await asyncio.sleep(0.01)


def test_the_digests_of_a_real_record() -> None:
    """DONA's signed record 0.TYPE/HS_ADMIN."""
    admin = {"handle": "200/00", "index": 300, "permissions": "111111111111"}
    record = read(
        "0.TYPE/HS_ADMIN",
        [
            {"index": 1, "type": "HS_ADMIN", "data": {"format": "admin", "value": admin}, "ttl": 86400},
            {"index": 2, "type": "DESC", "data": {"format": "base64", "value": DESC}, "ttl": 86400},
        ],
    )
    first, second = record.values
    assert first.data == bytes.fromhex("0fff000000063230302f30300000012c")
    assert digest(first.encode(), "SHA-256") == "YbmdDFxMdUrlaP2vTJyOW0dFPry4E7hff1GvthzJ/OM="
    assert digest(second.encode(), "SHA-256") == "M3TZALyxqYyOrvkcCjtZLiARmyW18I+WfOQbyiiBLJ4="
    assert len(b64decode(DESC)) == 341


@pytest.mark.parametrize(
    ("ttl", "holds"), [(0, SHORTEST), (86_400, 86_400.0), (10**9, LONGEST), ("1999-01-01T00:00:00Z", SHORTEST)]
)
def test_the_time_that_an_answer_holds_is_bounded(ttl: object, holds: float) -> None:
    record = read(ID, [{"index": 1, "type": "URL", "data": "x", "ttl": ttl}])
    assert record.holds(time.time()) == holds


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"{" * 5000, b'{"a":' + b"[" * 20 + b"]" * 20 + b"}", b" " * 300_000]
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        load(body)


@pytest.mark.parametrize(
    "values",
    [
        [3],
        [{"index": -1, "type": "URL", "data": "x"}],
        [{"index": 1, "type": 5, "data": "x"}],
        [{"index": 1, "type": "URL", "data": {"format": "wax", "value": "x"}}],
        [{"index": 1, "type": "URL", "data": {"format": "hex", "value": "xyz"}}],
        [{"index": 1, "type": "URL", "data": "x", "ttl": "tomorrow"}],
        [{"index": 1, "type": "URL", "data": "x", "permissions": "11"}],
        [{"index": 1, "type": "URL", "data": "x"}] * 3000,
    ],
)
def test_what_is_no_record_is_refused(values: list[object]) -> None:
    with pytest.raises(ValueError):
        read(ID, values)


async def test_a_record_is_asked_for_once_and_kept(rig: Rig) -> None:
    resolver = rig.resolver()
    await resolver.load([ID])
    assert resolver.of(ID).state == "unresolved"
    # Single flight: ten ask, the node is asked once.
    found = await asyncio.gather(*(resolver.resolve(ID) for _ in range(10)))
    assert rig.server.asked[ID] == 1
    facts = {"name_zh": "压机温度", "unit": "°C", "level": "2", "domain": "生产"}
    assert {each.state for each in found} == {"resolved"}
    assert dict(found[0].facts) == facts
    await resolver.close()
    # The node is away: a warm cache is enough, and is stale once its time is over.
    await rig.server.close()
    again = rig.resolver()
    await again.load([ID])
    assert again.of(ID) == Resolved("resolved", facts)
    await again.close()
    rig.clock.ahead = 86_401
    late = rig.resolver()
    await late.load([ID])
    assert late.of(ID) == Resolved("stale", facts)
    await late.close()
    rig.clock.ahead = -3600.0
    back = rig.resolver()
    await back.load([ID])
    assert back.of(ID).state == "stale", "a clock that went back makes nothing young"
    await back.close()
    rig.clock.ahead = 40 * 86_400
    older = rig.resolver()
    await older.load([ID])
    assert older.of(ID).state == "unresolved"


async def test_odd_identifiers_reach_the_node_whole(rig: Rig) -> None:
    odd = ["88.608.8889/EQ#01 泵", "88.608.8889/a/b", "20.1000/5555/", "88.1/a?b=c&d=%41"]
    for text in odd:
        rig.server.records[Resolver.key(text) or ""] = Entry(text, {"name_en": text})
    resolver = rig.resolver()
    for text in odd:
        assert (await resolver.resolve(text)).facts["name_en"] == text
    assert (await resolver.resolve("20.1000/5555")).state == "unknown", "a trailing slash is another handle"
    assert (await resolver.resolve("HDL:88.118.8/press.temp")).state == "resolved"
    assert (await resolver.resolve("urn:oid:1.2.156.1")).state == "static"
    assert (await resolver.resolve("whatever")).state == "opaque"


async def test_unknown_is_remembered_and_its_time_doubles(rig: Rig) -> None:
    resolver = rig.resolver()
    await resolver.load(["88.118.8/none"])
    async with running(resolver):
        await wait(lambda: resolver.of("88.118.8/none").state == "unknown")
        rig.clock.ahead = 320.0
        await wait(lambda: rig.server.asked["88.118.8/none"] == 2)
        rig.clock.ahead += 400.0  # 600 s now, of which 80 % are not over
        await asyncio.sleep(0.2)
        assert rig.server.asked["88.118.8/none"] == 2


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault.HANG, "unresolved"),
        (Fault.RESET, "unresolved"),
        (Fault.DRIP, "unresolved"),
        (Fault.ERROR, "unresolved"),
        (Fault.UNAVAILABLE, "unresolved"),
        (Fault.REDIRECT, "unresolved"),
        (Fault.OVERSIZE, "unresolved"),
        (Fault.LIMIT, "unresolved"),
        (Fault.MALFORMED, "refused"),
        (Fault.DEEP, "refused"),
        (Fault.WRONG, "refused"),
        (Fault.TAMPERED, "refused"),
        (Fault.EXPIRED, "refused"),
    ],
)
async def test_a_faulty_node_changes_nothing_that_is_known(rig: Rig, fault: Fault, state: str) -> None:
    rig.server.root = Root() if fault in (Fault.TAMPERED, Fault.EXPIRED) else None
    rig.server.fault = fault
    cold = rig.resolver(timeout=1.0 if fault in (Fault.HANG, Fault.DRIP) else 15.0)
    began = time.monotonic()
    with contextlib.suppress(Unreachable):
        await cold.resolve(ID)
    assert time.monotonic() - began < 20.0
    assert cold.of(ID).state == state
    assert cold.of(ID).facts == {}
    rig.server.fault = None
    before = await cold.resolve(ID)
    assert before.state == "resolved"
    rig.server.fault = fault
    rig.clock.ahead = 90_000
    with contextlib.suppress(Unreachable):
        await cold.resolve(ID)
    assert cold.of(ID) == replace(before, state="stale")


async def test_a_node_that_fails_is_left_alone_for_a_while(rig: Rig) -> None:
    rig.server.fault = Fault.ERROR
    resolver = rig.resolver()
    identifiers = [f"88.118.8/t{at}" for at in range(200)]
    await resolver.load(identifiers)
    async with running(resolver):
        await wait(lambda: resolver.facts()["circuit_open"])
        await asyncio.sleep(0.3)
        assert sum(rig.server.asked.values()) <= FAILURES + 4


async def test_the_rate_is_kept(rig: Rig) -> None:
    node = Node(rig.server.url, rate=50, concurrency=8, timeout=30.0)
    began = time.monotonic()
    await asyncio.gather(*(node.ask("GET", "/api/handles/88.118.8/press.temp") for _ in range(25)))
    assert time.monotonic() - began > 0.35
    await node.close()


async def test_signatures(rig: Rig) -> None:
    root, other = Root(), Root()
    rig.server.root = root
    assert (await rig.resolver(roots=roots(root.pem)).resolve(ID)).state == "verified"
    assert (await rig.resolver(roots=roots(other.pem)).resolve(ID)).state == "refused"
    assert (await rig.resolver().resolve(ID)).state == "resolved", "no roots: only the digests are checked"
    rig.server.root = None
    assert (await rig.resolver(roots=roots(root.pem)).resolve(ID)).state == "refused", "nobody signed it"
    rig.server.fault = Fault.FORGED
    assert (await rig.resolver(roots=roots(root.pem)).resolve(ID)).state == "refused"


def test_what_is_signed_and_hidden_does_not_break_a_signature() -> None:
    root = Root()
    values = Entry(ID, {"unit": "°C", "secret": "x"}).values()
    text = root.sign(ID, values)
    shown = [values[0], {"index": 400, "type": "HS_SIGNATURE", "data": text, "ttl": 60}]
    [(indexes, signature)] = signatures(read(ID, shown), time.time())
    assert indexes == {2000}
    assert signed_by(roots(root.pem)[0], signature)
    shown[0]["data"]["value"] = "°F"
    with pytest.raises(Untrue, match="value 2000 is not what was signed"):
        signatures(read(ID, shown), time.time())


SECOND, WORKS = "301:88.118/admin", "301:88.118.8/admin"
UNDER = ("handlesUnderThisPrefix", "0.NA/88.118.8")


def certified(rig: Rig, *certificates: str) -> None:
    """Puts certificates into the records of the two signers, the enterprise's first."""
    for name, certificate in zip((WORKS, SECOND), certificates, strict=False):
        handle = name.partition(":")[2]
        rig.server.records[handle] = Entry(handle, {"HS_CERT": certificate})


async def test_a_chain_of_certificates_leads_to_the_root(rig: Rig) -> None:
    """Root -> second-level node -> enterprise -> record, one certificate at a time made wrong."""
    root, second, works, stranger = Root(), Root(SECOND), Root(WORKS), Root(SECOND)
    rig.server.root = works
    upper = root.certify(second, ("derivedPrefixes", "88.118"))
    lower = second.certify(works, UNDER)
    other = Entry("88.118.8/press.count", {"unit": "pcs"})
    rig.server.records[other.handle] = other
    certified(rig, lower, upper)
    resolver = rig.resolver(roots=roots(root.pem))
    found = await resolver.resolve(ID)
    assert (found.state, found.facts["unit"]) == ("verified", "°C")
    assert (await resolver.resolve(other.handle)).state == "verified"
    assert (rig.server.asked["88.118.8/admin"], rig.server.asked["88.118/admin"]) == (1, 1), "each signer once"

    async def refused(*certificates: str) -> str:
        certified(rig, *certificates)
        resolver = rig.resolver(roots=roots(root.pem))
        with pytest.raises(Untrue) as reason:
            await resolver._judge(Identifier(ID), await HandleDialect().ask(resolver._node, Identifier(ID)))
        assert (await resolver.resolve(ID)).state in ("refused", "stale"), reason
        return str(reason.value)

    for perms, told in (
        ([("handlesUnderThisPrefix", "88.118.9")], "is not for it"),
        ([("thisHandle", "88.118.8/press.other")], "is not for it"),
        ([("derivedPrefixes", "88.118.8")], "is not for it"),
        ([("whatever", "88.118.8")], "is not for it"),
        ([], "is not for it"),
    ):
        assert told in await refused(second.certify(works, *perms), upper)
    assert "is not for it" in await refused(lower, root.certify(second, ("derivedPrefixes", "88.11")))
    assert "out of its time" in await refused(second.certify(works, UNDER, begin=-7200), upper)
    assert "is not for certificates" in await refused(lower, root.certify(second, ("everything", ""), ca=False))
    assert "neither a root nor" in await refused(stranger.certify(works, UNDER), upper)
    assert "neither a root nor" in await refused(lower, root.certify(stranger, ("everything", "")))
    assert "no root within" in await refused(works.certify(works, UNDER), upper)
    assert "no certificate of its signer" in await refused(second.certify(stranger, UNDER), upper)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers()
    jwk = {"kty": "RSA", "n": b64encode(weak.n.to_bytes(128)).decode(), "e": "AQAB"}
    assert "key" in await refused(second.certify(works, UNDER, publicKey=jwk), upper)
    assert "no RSA key" in await refused(second.certify(works, UNDER, publicKey={"kty": "EC"}), upper)
    assert "without permissions" in await refused(second.certify(works, UNDER, perms="all"), upper)
    assert "can't be read" in await refused("no.jws", upper)
    del rig.server.records["88.118.8/admin"]
    assert "no certificate of its signer" in await refused()


async def test_the_other_dialects(rig: Rig) -> None:
    snms = rig.resolver(SnmsDialect("reader", "secret"))
    assert (await snms.resolve(ID)).facts["name_zh"] == "压机温度"
    rig.server.tokens.clear()  # it runs out in the middle
    assert (await snms.resolve(ID)).state == "resolved"
    assert (await snms.resolve("88.118.8/none")).state == "unknown"
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for success in (1, 10000):
        rig.server.success = success
        idhub = rig.resolver(IdHubDialect("88.118.8/app", pem))
        assert (await idhub.resolve(ID)).facts["unit"] == "°C"
        rig.server.tokens.clear()
        assert (await idhub.resolve(ID)).state == "resolved"
        assert (await idhub.resolve("88.118.8/none")).state == "unknown"


async def test_strict_waits_and_names_what_is_missing(rig: Rig) -> None:
    resolver = rig.resolver()
    await resolver.load([ID, "88.118.8/none"])
    async with running(resolver):
        with pytest.raises(Unresolved, match=r"88\.118\.8/none"):
            await resolver.settle(5.0)


def test_a_record_never_loosens_a_label() -> None:
    tag = CatalogTag(0, "press", "temp", ID, "float32", unit="°C", level=2, category="important")
    lower = Resolved("resolved", {"level": "1", "category": "general", "unit": "°F", "name_zh": "温度"})
    found = bound(tag, lower)
    assert (found.level, found.category, found.unit, found.names) == (2, "important", "°C", {"zh": "温度"})
    words = sorted(each.word for each in refusals(tag, lower))
    assert words == ["category_lowered", "level_lowered", "unit_conflict"]
    higher = bound(tag, Resolved("stale", {"level": "三级", "category": "核心", "unit": "℃"}))
    assert (higher.level, higher.category, higher.resolution) == (3, "core", "stale")
    assert [each.word for each in refusals(tag, Resolved("resolved", {"unit": "℃", "level": "9"}))] == ["not_a_label"]
    assert bound(tag, Resolved("refused", {"level": "3"})).level == 2
    bare = CatalogTag(0, "press", "temp", ID, "float32")
    filled = bound(bare, Resolved("verified", {"unit": "kW", "domain": "运维", "level": "1"}))
    assert (filled.unit, filled.unit_code, filled.domain, filled.level) == ("kW", "KWT", "operation", 1)


def test_an_agent_collects_whatever_its_resolver_does(tmp_path: Path, mosquitto: Mosquitto) -> None:
    """Starts while the node is away; what it says later makes a new epoch without losing a reading."""
    port = free_port()
    press = Device(
        "press",
        f'protocol = "modbus"\nurl = "tcp://127.0.0.1:{free_port()}"\npoll = "50ms"',
        ["temp,hr:0,float32,°C,2", "count,hr:2,uint32,,1"],
        "name,address,type,unit,level",
    )
    extra = f'\n[resolver]\nurl = "http://127.0.0.1:{port}"\nrate = 500\ntimeout = "500ms"\n'
    plant = Plant.write(tmp_path, mosquitto.url, [press], extra)

    def resolution(process: Any) -> dict[str, Any]:
        lines = [line for line in process.lines() if line.get("resolver")]
        return lines[-1]["resolver"] if lines else {"states": {}}

    with simulator(tmp_path, plant), data_center(tmp_path, plant), agent(tmp_path, plant) as process:
        until(lambda: plant.readings("88.118.8/press.temp")["readings"])
        until(lambda: resolution(process)["states"] == {"unresolved": 2})
        loop = asyncio.new_event_loop()
        attributes = {"name_zh": "压机温度", "level": "3", "unit": "°F"}
        server = ResolverServer({ID: Entry(ID, attributes)}, port=port)
        loop.run_until_complete(server.open())

        def served() -> bool:
            loop.run_until_complete(asyncio.sleep(0.05))  # it answers only meanwhile
            return bool(resolution(process)["states"] == {"resolved": 1, "unknown": 1})

        until(served, 30)
        until(lambda: process.events().count("unit_conflict") == 1)
        until(
            lambda: any("main, level 3" in line["egress"]["allowed_by"] for line in process.lines() if "egress" in line)
        )
        loop.run_until_complete(server.close())
        loop.close()
        process.stop()
        [last] = [line for line in process.lines() if line.get("stopped")]
        # What the last second did not send waits in the outbox.
        waiting = last["outbox"]["readings"]
        until(lambda: plant.summary()["readings"] >= last["accepted"] - waiting)
        summary = plant.summary()
    assert last["resolver"]["states"] == {"resolved": 1, "unknown": 1}
    assert set(last["egress"]["allowed_by"]) == {"main, level 2", "main, level 1", "main, level 3"}
    assert summary["readings"] <= last["accepted"] <= summary["readings"] + waiting
    assert summary["readings_lost"] == 0


async def test_many_identifiers_are_each_asked_for_once(rig: Rig) -> None:
    """100,000 at once, with rates and times: `make bench-resolver` (docs/identifiers.md)."""
    identifiers = [f"88.118.8/d.t{at}" for at in range(2000)]
    rig.server.records |= {each: Entry(each, {"name_en": each, "level": "1"}) for each in identifiers}
    resolver = rig.resolver(concurrency=8)
    await resolver.load([*identifiers, *identifiers[:500]])
    async with running(resolver):
        await wait(lambda: resolver.facts()["states"] == {"resolved": 2000}, 50)
        await asyncio.sleep(0.2)
    assert set(rig.server.asked.values()) == {1}
    rig.open.remove(resolver)
    warm = rig.resolver()
    began = time.process_time()
    await warm.load(identifiers)
    assert time.process_time() - began < 1.0
    assert warm.facts()["states"] == {"resolved": 2000}
    assert warm.of(identifiers[7]).facts["name_en"] == identifiers[7]
