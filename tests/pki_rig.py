"""Certificates for tests: good ones, and each kind of bad one."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_URI = "urn:headrace:test:server"
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
_ALL = (*USAGES, "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
_SHA256_RSA, _SHA1_RSA = (bytes.fromhex(f"2a864886f70d0101{last}") for last in ("0b", "05"))
NOW = datetime.now(UTC).replace(microsecond=0)


@cache
def key(name: str = "server", bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key for each name: making them takes its time."""
    del name
    return rsa.generate_private_key(65537, bits)


@dataclass(frozen=True)
class Made:
    """A certificate to be made."""

    name: str = "server"
    uri: str | None = SERVER_URI
    hosts: tuple[str, ...] = ("127.0.0.1",)
    days: tuple[float, float] = (-1, 365)
    bits: int = 2048
    usages: tuple[str, ...] = USAGES
    purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH
    ca: bool = False
    issuer: Made | None = None
    """None: it signs itself."""

    @property
    def key(self) -> rsa.RSAPrivateKey:
        return key(self.name, self.bits)

    @property
    def subject(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])

    def make(self) -> x509.Certificate:
        by = self.issuer or self
        usage = {name: name in (*self.usages, *(("key_cert_sign", "crl_sign") if self.ca else ())) for name in _ALL}
        first, last = (NOW + timedelta(days=day) for day in self.days)
        made = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(by.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(first)
            .not_valid_after(last)
            .add_extension(x509.BasicConstraints(ca=self.ca, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.ExtendedKeyUsage([self.purpose]), critical=False)
        )
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(each)) for each in self.hosts]
        if self.uri is not None:
            names.insert(0, x509.UniformResourceIdentifier(self.uri))
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return made.sign(by.key, SHA256())


CA = Made("ca", uri=None, hosts=(), ca=True)


def revocations(*serials: int, days: float = 30, by: Made = CA) -> x509.CertificateRevocationList:
    """A list signed by a CA, which is current for so many days."""
    made = x509.CertificateRevocationListBuilder().issuer_name(by.subject)
    made = made.last_update(NOW - timedelta(days=60)).next_update(NOW + timedelta(days=days))
    for serial in serials:
        gone = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - timedelta(days=1)).build()
        made = made.add_revoked_certificate(gone)
    return made.sign(by.key, SHA256())


def der(each: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return each.public_bytes(serialization.Encoding.DER)


def pem(each: x509.Certificate) -> bytes:
    return each.public_bytes(serialization.Encoding.PEM)


def key_pem(each: rsa.RSAPrivateKey) -> bytes:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return each.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def with_sha1(made: Made) -> bytes:
    """The certificate in DER as it was made long ago; no library signs one any more."""
    content = der(made.make()).replace(_SHA256_RSA, _SHA1_RSA)
    body = content[4 : 8 + int.from_bytes(content[6:8])]
    return content[:-256] + made.key.sign(body, padding.PKCS1v15(), SHA1())


def equip(home: Path, made: Made | None = None) -> x509.Certificate:
    """A server's certificate and key in its STORE, in every form that one of the peers wants; and a user's."""
    made = made or Made()
    certificate = made.make()
    put(home / "server.der", der(certificate))
    put(home / "server.crt", pem(certificate))
    put(home / "server.pem", key_pem(made.key))
    user = replace(Made(), name="user", uri="urn:headrace:test:user", purpose=ExtendedKeyUsageOID.CLIENT_AUTH)
    put(home / "user.der", der(user.make()))
    put(home / "user.pem", key_pem(user.key))
    return certificate
