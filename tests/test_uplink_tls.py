"""TLS to the broker: whom the agent trusts, how it shows who it is, and files that are replaced while it runs."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.errors import NotConnected
from agent.outbox import Outbox
from agent.tls import Credentials
from agent.uplink import Uplink
from agent.wire import Broker
from tests.peers.brokers import Mosquitto
from tests.test_outbox import opened
from tests.uplink_rig import append, delivering, events, until


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    async with opened(tmp_path / "outbox.db") as found:
        await found.keep_catalog(7, b"catalog seven")
        yield found


def certificates(place: Path) -> None:
    """A certificate authority (ca.pem), and certificates of it for 127.0.0.1 with their keys."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server", "agent", "next")}
    names = {name: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in keys}
    for name, key in keys.items():
        certificate = (
            x509.CertificateBuilder()
            .subject_name(names[name])
            .issuer_name(names["ca"])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]), critical=False
            )
            .sign(keys["ca"], hashes.SHA256())
        )
        (place / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (place / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


# paho leaves the socket of a failed handshake to the garbage collector
@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_tls_verifies_the_broker(tmp_path: Path, outbox: Outbox) -> None:
    certificates(tmp_path)
    settings = (f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key")
    await append(outbox, 20)
    with Mosquitto(tmp_path / "broker", settings=settings) as broker:
        address = Broker("127.0.0.1", broker.port, tls=True)
        line = Uplink(broker=address, client_id="a", credentials=Credentials(tmp_path / "ca.pem"))
        async with delivering(line, outbox, confirm="broker") as delivery:
            assert await delivery.drain(40.0)
        stranger = Uplink(broker=address, client_id="a")
        with pytest.raises(NotConnected, match="certificate"):
            await stranger.connect(will=("a/b", b""), subscribe=["a/c"], hear=lambda *_: None, wake=lambda: None)


SECURE = ("certfile {0}/server.pem", "keyfile {0}/server.key", "cafile {0}/ca.pem", "require_certificate true")


@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_a_broker_that_asks_who_we_are(tmp_path: Path, outbox: Outbox) -> None:
    certificates(tmp_path)
    await append(outbox, 20)
    with Mosquitto(tmp_path / "broker", settings=tuple(line.format(tmp_path) for line in SECURE)) as broker:
        address = Broker("127.0.0.1", broker.port, tls=True)
        files = Credentials(tmp_path / "ca.pem", tmp_path / "agent.pem", tmp_path / "agent.key")
        async with delivering(
            Uplink(broker=address, client_id="a", credentials=files), outbox, confirm="broker"
        ) as one:
            assert await one.drain(40.0)
        nobody = Uplink(broker=address, client_id="a", credentials=Credentials(tmp_path / "ca.pem"), timeout=5.0)
        with pytest.raises(NotConnected):
            await nobody.connect(will=("a/b", b""), subscribe=["a/c"], hear=lambda *_: None, wake=lambda: None)


@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
async def test_new_files_are_used_without_a_restart(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("agent.delivery.STATE_SECONDS", 0.5)
    certificates(tmp_path)
    with Mosquitto(tmp_path / "broker", settings=tuple(line.format(tmp_path) for line in SECURE)) as broker:
        address = Broker("127.0.0.1", broker.port, tls=True)
        files = Credentials(tmp_path / "ca.pem", tmp_path / "agent.pem", tmp_path / "agent.key")
        async with delivering(
            Uplink(broker=address, client_id="a", credentials=files), outbox, confirm="broker"
        ) as one:
            await append(outbox, 5)
            assert await one.drain(40.0)
            key = (tmp_path / "agent.key").read_bytes()
            (tmp_path / "agent.key").write_bytes(key[:40])  # half of it is written
            await until(lambda: events(caplog, "credentials_unusable"))
            assert one.facts()["connects"] == 1
            for kind in ("pem", "key"):
                (tmp_path / f"next.{kind}").replace(tmp_path / f"agent.{kind}")
            await until(lambda: one.facts()["connects"] >= 2 and one.facts()["connected"])
            await append(outbox, 5)
            one.wake()
            assert await one.drain(40.0)
        assert events(caplog, "uplink_renewed")


def test_nothing_below_tls_1_2(tmp_path: Path) -> None:
    certificates(tmp_path)
    context = Credentials(tmp_path / "ca.pem", tmp_path / "agent.pem", tmp_path / "agent.key").context()
    assert context.minimum_version.name == "TLSv1_2"
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
    with pytest.raises(OSError, match=r"(?i)certificate"):
        Credentials(tmp_path / "agent.key").context()
