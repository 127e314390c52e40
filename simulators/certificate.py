"""A certificate for virtual devices that speak TLS. Self-signed: a client that takes it as its CA trusts them."""

from __future__ import annotations

import ipaddress
import os
import ssl
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from simulators.loopback import loopback

DAYS = 3650


def make(certificate: Path) -> tuple[Path, Path]:
    """(certificate, key) as PEM files, the key beside the certificate as `.key`, for this machine's loopback names.
    Those that are there are kept."""
    key = certificate.with_suffix(".key")
    if certificate.exists() and key.exists():
        return certificate, key
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Headrace virtual plant")])
    names = [x509.DNSName("localhost")]
    addresses = [x509.IPAddress(ipaddress.ip_address(each)) for each in ("127.0.0.1", "::1")]
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(secret.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(secret.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(secret.public_key()), critical=False)
        .sign(secret, hashes.SHA256())
    )
    certificate.parent.mkdir(parents=True, exist_ok=True)
    pem = serialization.Encoding.PEM
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(secret.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    certificate.write_bytes(made.public_bytes(pem))
    return certificate, key


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
