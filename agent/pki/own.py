"""The agent's own application certificate (OPC 10000-6, 6.2.2): made at its first start, renewed before it expires.

    own/certificate.der, own/key.pem            what is used; 3072 bits
    own/certificate-2048.der, ...               the same for the deprecated policies, which take no longer keys
    own/certificate.previous.der, ...           after a renewal the one before, for servers that know only that one

A certificate of your own CA takes their place: put it there with its key, in DER or PEM. It is never renewed here.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent import durable
from agent.pki import certificate as certificates
from agent.pki.certificate import Names, days_left, self_issued

log = logging.getLogger("headrace.pki")

YEARS = 5
RENEW_DAYS = 60
"""So long before a certificate expires there is a new one, for the servers to be told of."""
STRONG, LEGACY = 3072, 2048
"""Bits. Every server must take 2048 to 4096, and with a deprecated policy none takes more than 2048."""
ORGANIZATION = "Headrace"


class Unusable(Exception):
    """Our own certificate or key can't be used. The message says which file, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate, its issuers as far as they are in the same file, and its private key."""

    path: Path
    certificate: x509.Certificate
    issuers: list[x509.Certificate]
    key: rsa.RSAPrivateKey

    @property
    def uri(self) -> str:
        """The ApplicationUri that goes with it."""
        return Names.of(self.certificate).uris[0]

    @property
    def fingerprint(self) -> str:
        return certificates.fingerprint(self.certificate)


class Own:
    """The pairs below pki/own. All calls block, the first for a second or two."""

    def __init__(self, place: Path, uri: str) -> None:
        self._place = place / "own"
        self._uri = uri
        """The ApplicationUri of a certificate that is made here."""

    def pairs(self, *, legacy: bool = False, now: datetime | None = None) -> list[Pair]:
        """What may be shown to a server, the newest first: more than one after a renewal. Makes what is missing.

        `legacy` gives the 2048 bits that go with deprecated policies. Raises Unusable, OSError."""
        now = now or datetime.now(UTC)
        stem = "-2048" if legacy else ""
        self._place.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            found = self._read(stem)
            if found is None:
                found = self._make(stem, now)
                facts = {"event": "own_certificate_made", "path": str(found.path), "fingerprint": found.fingerprint}
                log.info("made the agent's certificate for OPC UA servers: %s", found.path, extra=facts)
            elif self._ours(found) and days_left(found.certificate, now) < RENEW_DAYS:
                for kind in ("certificate", "key"):
                    path = self._path(kind, stem)
                    path.replace(path.with_suffix(f".previous{path.suffix}"))
                found = self._make(stem, now)
                text = "our certificate was renewed; servers have to trust %s, and until they do the old one serves"
                log.warning(text, found.path, extra={"event": "own_certificate_renewed", "path": str(found.path)})
            before = self._before(stem)
        if now > found.certificate.not_valid_after_utc:
            ended = found.certificate.not_valid_after_utc
            raise Unusable(f"{found.path} expired on {ended:%Y-%m-%d}; put a new one there")
        usable = before is not None and before.certificate.not_valid_after_utc > now
        return [found, before] if before is not None and usable else [found]

    def _path(self, kind: str, stem: str) -> Path:
        return self._place / f"{kind}{stem}{'.der' if kind == 'certificate' else '.pem'}"

    def _read(self, stem: str) -> Pair | None:
        given = [self._place / f"certificate{stem}{ending}" for ending in (".der", ".pem", ".crt")]
        path = next((each for each in given if each.exists()), None)
        if path is None:
            return None
        keys = [self._place / f"key{stem}{ending}" for ending in (".pem", ".der", ".key")]
        key = next((each for each in keys if each.exists()), None)
        if key is None:
            raise Unusable(f"{path} has no key beside it; put it at {keys[0]}, or remove the certificate")
        return _pair(path, key)

    def _before(self, stem: str) -> Pair | None:
        paths = [self._path(kind, stem) for kind in ("certificate", "key")]
        path, key = (each.with_suffix(f".previous{each.suffix}") for each in paths)
        with contextlib.suppress(Unusable, OSError):  # it is only a second way
            return _pair(path, key)
        return None

    @staticmethod
    def _ours(pair: Pair) -> bool:
        names = pair.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        return self_issued(pair.certificate) and any(each.value == ORGANIZATION for each in names)

    def _make(self, stem: str, now: datetime) -> Pair:
        key = rsa.generate_private_key(65537, LEGACY if stem else STRONG)
        path, key_path = self._path("certificate", stem), self._path("key", stem)
        form = serialization.PrivateFormat.PKCS8
        text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        certificate = _self_signed(key, self._uri, now)
        # The key first: a certificate is only there with its key.
        durable.write(key_path, text, 0o600)
        durable.write(path, certificates.der(certificate), 0o644)
        return Pair(path, certificate, [], key)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Two devices, or two commands, may come here at once."""
        with (self._place / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def read_pair(path: Path, key: Path) -> Pair:
    """A certificate for a user, which need not be an application's. Raises Unusable, OSError."""
    return _pair(path, key, application=False)


def _pair(path: Path, key_path: Path, *, application: bool = True) -> Pair:
    hint = "put a right pair there, or remove both files to have new ones made" if application else "write another file"
    try:
        chain = certificates.read(path.read_bytes())
    except ValueError as reason:
        raise Unusable(f"{path}: {reason}; {hint}") from None
    try:
        content = key_path.read_bytes()
        pem = content.lstrip().startswith(b"-----BEGIN")
        load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
        key = load(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unusable(f"{key_path} can't be read as a private key without a password; {hint}") from None
    if not isinstance(key, rsa.RSAPrivateKey) or key.public_key() != chain[0].public_key():
        raise Unusable(f"{key_path} is not the key of {path.name}; {hint}")
    if application and not Names.of(chain[0]).uris:
        raise Unusable(f"{path} is no application's certificate: it names no ApplicationUri; {hint}")
    return Pair(path, chain[0], chain[1:], key)


def _self_signed(key: rsa.RSAPrivateKey, uri: str, now: datetime) -> x509.Certificate:
    host = socket.gethostname() or "localhost"
    attributes = ((NameOID.COMMON_NAME, f"Headrace@{host}"[:64]), (NameOID.ORGANIZATION_NAME, ORGANIZATION))
    name = x509.Name([x509.NameAttribute(kind, text) for kind, text in attributes])
    others: list[x509.GeneralName] = [x509.IPAddress(each) for each in _addresses()]
    if host.isascii():
        others.insert(0, x509.DNSName(host))
    usages = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,  # it signs itself
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    public = key.public_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # a server's clock may be behind ours
        .not_valid_after(now + timedelta(days=365 * YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), *others]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usages, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, SHA256())
    )


def _addresses() -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The addresses that this machine would send from. Nothing is sent, and no name is looked up."""
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = []
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 4840))
            found.append(ipaddress.ip_address(str(probe.getsockname()[0]).partition("%")[0]))
    return found
