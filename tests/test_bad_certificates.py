"""Each kind of bad certificate is refused, with its own reason, by the collector at a real server that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.collectors.opcua import OpcUaCollector
from agent.config import OpcUaDevice
from agent.errors import NotConnected
from agent.intake import Intake
from agent.pki.certificate import read
from agent.pki.store import Store
from tests.peers.servers import AsyncuaServer
from tests.pki_rig import CA, Made, der, equip, put, revocations, with_sha1

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy

GOOD = Made()
ISSUED = replace(GOOD, issuer=CA)


@dataclass(frozen=True)
class Case:
    """What the server shows, what is trusted, and every code that the refusal names, in order."""

    made: Made
    codes: tuple[str, ...]
    says: str
    trusted: str = "itself"
    """itself | its CA | nothing."""
    crl: str = "current"
    """current | old | revoked | none."""


CASES = {
    "unknown": Case(GOOD, ("BadCertificateUntrusted",), "headrace trust", trusted="nothing"),
    "expired": Case(replace(GOOD, days=(-10, -1)), ("BadCertificateTimeInvalid",), "it expired on"),
    "not yet valid": Case(replace(GOOD, days=(1, 10)), ("BadCertificateTimeInvalid",), "is a clock wrong?"),
    "another host": Case(
        replace(GOOD, hosts=("192.0.2.9",)),
        ("BadCertificateHostNameInvalid",),
        "it is for 192.0.2.9, not for 127.0.0.1",
    ),
    "another application": Case(
        replace(GOOD, uri="urn:other"), ("BadCertificateUriInvalid",), "urn:other, and the server calls itself"
    ),
    "no application": Case(replace(GOOD, uri=None), ("BadCertificateUriInvalid",), "it is no application's"),
    "unknown issuer": Case(
        ISSUED, ("BadCertificateChainIncomplete",), "its issuer CN=ca is not known", trusted="nothing"
    ),
    "broken signature": Case(ISSUED, ("BadCertificateInvalid",), "its signature is broken", trusted="its CA"),
    "revoked": Case(ISSUED, ("BadCertificateRevoked",), "revoked by its issuer", trusted="its CA", crl="revoked"),
    "no CRL": Case(
        ISSUED, ("BadCertificateRevocationUnknown",), "there is no CRL of its issuer", trusted="its CA", crl="none"
    ),
    "old CRL": Case(ISSUED, ("BadCertificateRevocationUnknown",), "is out of date", trusted="its CA", crl="old"),
    "issuer expired": Case(
        replace(ISSUED, issuer=replace(CA, days=(-10, -1))),
        ("BadCertificateIssuerTimeInvalid",),
        "its issuer CN=ca expired",
        trusted="its CA",
    ),
    "issuer is no CA": Case(
        replace(ISSUED, issuer=replace(CA, ca=False)),
        ("BadCertificateIssuerUseNotAllowed",),
        "its issuer CN=ca is no CA",
        trusted="its CA",
    ),
    "key for signing only": Case(
        replace(GOOD, usages=("digital_signature",)), ("BadCertificateUseNotAllowed",), "may not encrypt keys"
    ),
    "for clients": Case(
        replace(GOOD, purpose=ExtendedKeyUsageOID.CLIENT_AUTH), ("BadCertificateUseNotAllowed",), "not for a server"
    ),
    "short key": Case(replace(GOOD, bits=1024), ("BadCertificatePolicyCheckFailed",), "its key has 1024 bits"),
    "SHA-1": Case(GOOD, ("BadCertificatePolicyCheckFailed",), "signed with SHA1"),
    "several at once": Case(
        replace(GOOD, days=(-10, -1), hosts=("192.0.2.9",)),
        ("BadCertificateUntrusted", "BadCertificateTimeInvalid", "BadCertificateHostNameInvalid"),
        "nobody has trusted it",
        trusted="nothing",
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AsyncuaServer]:
    home = tmp_path_factory.mktemp("asyncua")
    equip(home)
    with AsyncuaServer(home) as running:
        yield running


class Rig:
    """One collector with a trust store of its own. `own` keeps the agent's own certificate for all of them."""

    def __init__(self, server: AsyncuaServer, home: Path, own: Path, **more: object) -> None:
        for name in ("shown.der", "hide"):
            (server.home / name).unlink(missing_ok=True)
        self.server, self.store = server, Store(home)
        own.mkdir(exist_ok=True)
        home.mkdir(exist_ok=True)
        (home / "own").symlink_to(own, target_is_directory=True)
        known = {"protocol": "opcua", "name": "d", "url": server.url, "tags": "d.csv", "timeout": "30s"}
        self.device = OpcUaDevice.model_validate(known | more)
        self.device._pki = home
        self.collector = OpcUaCollector(self.device, Intake([], 1 << 20))

    def show(self, content: bytes) -> None:
        put(self.server.home / "shown.der", content)

    def trust(self, certificate: x509.Certificate) -> None:
        self.store.trust(certificate)

    async def connect(self) -> None:
        try:
            await self.collector.connect()
        finally:
            await self.collector.close()

    async def refusal(self) -> str:
        with pytest.raises(NotConnected) as refused:
            await self.connect()
        return str(refused.value)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own") / "pki"


@pytest.fixture
def rig(server: AsyncuaServer, tmp_path: Path, own: Path) -> Rig:
    return Rig(server, tmp_path / "pki", own)


@pytest.mark.parametrize("name", CASES)
async def test_a_bad_certificate_is_refused_with_its_reason(
    rig: Rig, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    case = CASES[name]
    certificate = case.made.make()
    shown = der(certificate)
    if name == "broken signature":
        shown = shown[:-1] + bytes([shown[-1] ^ 1])
    if name == "SHA-1":
        shown = with_sha1(case.made)
    if case.trusted == "itself":
        rig.trust(read(shown)[0])
    elif case.trusted == "its CA" and case.made.issuer is not None:
        rig.trust(case.made.issuer.make())
    if case.crl != "none":
        serials = [certificate.serial_number] if case.crl == "revoked" else []
        put(rig.store.place / "crl" / "ca.crl", der(revocations(*serials, days=-1 if case.crl == "old" else 30)))
    rig.show(shown)
    text = await rig.refusal()
    assert case.says in text
    (line,) = [each for each in caplog.records if getattr(each, "event", "") == "server_refused"]
    assert tuple(line.__dict__["codes"]) == case.codes
    # Kept, to be looked at and trusted; and nothing was opened.
    (kept,) = (rig.store.place / "rejected").iterdir()
    assert kept.read_bytes() == shown
    assert rig.collector.counters["refused_certificates"] == 1


async def test_a_good_certificate_is_taken_however_it_is_trusted(rig: Rig) -> None:
    rig.trust(read((rig.server.home / "server.der").read_bytes())[0])
    await rig.connect()
    assert rig.collector.counters["server_certificate_days"] in (364, 365)


async def test_what_can_not_be_read_as_a_certificate_is_refused(rig: Rig) -> None:
    for content in (b"\x30\x82\x01\x00garbage", b"", b"\x30\x84\xff\xff\xff\xff" + bytes(100)):
        rig.show(content)
        assert "BadCertificateInvalid" in await rig.refusal()
        rig.collector = OpcUaCollector(rig.device, Intake([], 1 << 20))


async def test_a_key_of_elliptic_curves_is_refused(rig: Rig) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    made = GOOD.make()
    built = x509.CertificateBuilder(made.subject, made.subject, key.public_key(), made.serial_number)
    built = built.not_valid_before(made.not_valid_before_utc).not_valid_after(made.not_valid_after_utc)
    for each in made.extensions:
        built = built.add_extension(each.value, each.critical)
    certificate = built.sign(key, SHA256())
    rig.trust(certificate)
    rig.show(der(certificate))
    assert "BadCertificatePolicyCheckFailed: it has an elliptic curve key" in await rig.refusal()


async def test_a_server_without_the_key_of_its_certificate_gets_no_channel(rig: Rig) -> None:
    stolen = replace(GOOD, name="stolen").make()
    rig.trust(stolen)
    rig.show(der(stolen))
    text = await rig.refusal()
    assert "when the channel was to be secured" in text


async def test_a_hidden_endpoint_is_noticed(rig: Rig) -> None:
    """Somebody on the way left only the weakest one in the list; the list of the secured session tells."""
    rig.trust(read((rig.server.home / "server.der").read_bytes())[0])
    put(rig.server.home / "hide", b"")
    text = await rig.refusal()
    assert "BadSecurityChecksFailed" in text
    assert "it was Basic256Sha256/Sign, and now it is Aes256_Sha256_RsaPss/SignAndEncrypt" in text


async def test_an_own_certificate_that_is_garbage_is_said_and_kept(server: AsyncuaServer, tmp_path: Path) -> None:
    rig = Rig(server, tmp_path / "pki", tmp_path / "own")
    path = put(tmp_path / "own" / "certificate.der", b"garbage")
    assert "has no key beside it" in await rig.refusal()
    put(tmp_path / "own" / "key.pem", b"garbage")
    assert f"{rig.store.place}/own/certificate.der: it can't be read as a certificate" in await rig.refusal()
    assert path.read_bytes() == b"garbage"


async def test_a_server_without_security_is_not_taken_by_chance(rig: Rig) -> None:
    rig = Rig(rig.server, rig.store.place.parent / "two", rig.store.place.parent, security="Basic256/Sign")
    text = await rig.refusal()
    assert (
        "offers no endpoint with Basic256/Sign; it offers Aes256_Sha256_RsaPss/SignAndEncrypt, Basic256Sha256" in text
    )


async def test_a_password_does_not_cross_a_line_unencrypted(server: AsyncuaServer, tmp_path: Path, own: Path) -> None:
    rig = Rig(server, tmp_path / "pki", own, security="None", username="reader", password="s3cret")
    assert "the password would cross the line unencrypted" in await rig.refusal()


async def test_another_host_may_be_allowed(server: AsyncuaServer, tmp_path: Path, own: Path) -> None:
    """It passes for another host; only then it comes out that its session has another certificate."""
    rig = Rig(server, tmp_path / "pki", own, hostname="ignore")
    certificate = replace(GOOD, hosts=("192.0.2.9",)).make()
    rig.trust(certificate)
    rig.show(der(certificate))
    assert await rig.refusal() == "Server certificate mismatch"
