"""Certificates of virtual devices, for this machine's loopback addresses only: for those that speak TLS (a client that
takes it as its CA trusts them), and for OPC UA servers (OPC 10000-6, 6.2.2). Self-signed."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from simulators.loopback import loopback

DAYS = 3650
BITS = 2048
"""Of an RSA key: the most that the deprecated policies of OPC UA take, and enough for the others."""
Secret: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_USAGES = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


def make(certificate: Path) -> tuple[Path, Path]:
    """(certificate, key) as PEM files, the key beside the certificate as `.key`, for this machine's loopback names.
    Those that are there are kept."""
    key = certificate.with_suffix(".key")
    if certificate.exists() and key.exists():
        return certificate, key
    secret = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH]
    made = _signed(secret, _names(), ("digital_signature", "key_cert_sign"), purposes, ca=True)
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), key, secret)
    return certificate, key


def application(certificate: Path, uri: str) -> tuple[Path, Path]:
    """The same for an OPC UA server that is called `uri`: the certificate in DER, the key in PEM beside it."""
    key = certificate.with_suffix(".pem")
    if certificate.exists() and key.exists():
        return certificate, key
    secret = rsa.generate_private_key(65537, BITS)
    usages = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_cert_sign")
    names = [x509.UniformResourceIdentifier(uri), x509.DNSName(socket.gethostname()), *_names()]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = _signed(secret, names, usages, purposes, ca=False)
    _write(certificate, made.public_bytes(serialization.Encoding.DER), key, secret)
    return certificate, key


def _names() -> list[x509.GeneralName]:
    addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    return [x509.DNSName("localhost"), *addresses]


def _signed(
    secret: Secret,
    names: Sequence[x509.GeneralName],
    usages: Sequence[str],
    purposes: Sequence[x509.ObjectIdentifier],
    *,
    ca: bool,
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Headrace virtual plant")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        .add_extension(x509.KeyUsage(**{each: each in usages for each in _USAGES}), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(secret.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(secret.public_key()), critical=False)
        .sign(secret, hashes.SHA256())
    )


def _write(certificate: Path, body: bytes, key: Path, secret: Secret) -> None:
    certificate.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        form = serialization.PrivateFormat.PKCS8
        file.write(secret.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    certificate.write_bytes(body)


def for_config(path: Path) -> list[Path]:
    """Makes what TLS devices of a config on this machine name as their `ca` and is not there, before the config is
    checked. Returns what it made. A config that can't be read is left to the check."""
    try:
        devices = tomllib.loads(path.read_text("utf-8")).get("device")
    except (OSError, ValueError):
        return []
    made = []
    for device in devices if isinstance(devices, list) else ():
        url, ca = (device.get(key) for key in ("url", "ca")) if isinstance(device, dict) else (None, None)
        if not (isinstance(url, str) and isinstance(ca, str) and ca and url.startswith("tls://")):
            continue
        wanted = path.parent / ca
        if not wanted.exists() and loopback(urlsplit(url).hostname or ""):
            made.append(make(wanted)[0])
    return made


def context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For a server: TLS 1.2 or later. Raises OSError (ssl.SSLError among them) where the files do not fit."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    found.load_cert_chain(certificate, key)
    return found
