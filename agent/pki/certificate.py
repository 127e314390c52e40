"""Reading certificates, and saying what is in them."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

MOST_BYTES = 64 * 1024
"""Of one certificate with its chain."""
DEEPEST = 8
"""Certificates in a chain."""


def read(content: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file, or of a chain in DER as OPC UA sends it: one after the other, the leaf first.

    Raises ValueError where there is none, one can't be read, or they are more than a chain has."""
    if not content:
        raise ValueError("there is no certificate")
    if len(content) > MOST_BYTES:
        raise ValueError(f"{len(content)} bytes are more than a certificate has")
    try:
        if content.lstrip().startswith(b"-----BEGIN"):
            found = x509.load_pem_x509_certificates(content)
        else:
            found = [x509.load_der_x509_certificate(each) for each in _split(content)]
        for each in found:
            _ = each.extensions, each.subject, each.issuer  # read when they are first asked for
    except ValueError as reason:
        raise ValueError(f"it can't be read as a certificate ({str(reason)[:80]})") from None
    if not 1 <= len(found) <= DEEPEST:
        raise ValueError(f"a chain of {len(found)} certificates")
    return found


def _split(content: bytes) -> list[bytes]:
    found = []
    while content:
        size = _size(content)
        found.append(content[:size])
        content = content[size:]
        if len(found) > DEEPEST:
            raise ValueError("a chain without an end")
    return found


def _size(content: bytes) -> int:
    """Bytes of the DER element at the start, header included."""
    first = content[1] if len(content) > 1 else 0
    count = first & 0x7F if first & 0x80 else 0
    if content[0] != 0x30 or count > 3:
        raise ValueError("not DER")
    size = 2 + count + (int.from_bytes(content[2 : 2 + count]) if count else first)
    if size > len(content):
        raise ValueError("cut off")
    return size


@dataclass(frozen=True, slots=True)
class Names:
    """What a certificate's subject alternative name says that it is for."""

    uris: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Names:
        try:
            found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return cls()
        return cls(
            found.get_values_for_type(x509.UniformResourceIdentifier),
            found.get_values_for_type(x509.DNSName),
            [str(each) for each in found.get_values_for_type(x509.IPAddress)],
        )

    def has_host(self, host: str) -> bool:
        """Whether it is for a host name or address. An address may also stand among the host names: some write so."""
        host = host.strip("[]").rstrip(".").lower()
        if host in {each.rstrip(".").lower() for each in self.hosts}:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return str(address) in self.addresses


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the DER form, in lower hexadecimal digits."""
    return certificate.fingerprint(SHA256()).hex()


def grouped(digits: str) -> str:
    """A fingerprint as people compare it."""
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def self_issued(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> int:
    """Whole days until it expires; negative afterwards."""
    return (certificate.not_valid_after_utc - (now or datetime.now(UTC))).days


def file_name(certificate: x509.Certificate) -> str:
    """What it is called among others of its kind."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = re.sub(r"[^\w.-]+", "-", str(names[0].value) if names else "certificate")[:60].strip("-.") or "certificate"
    return f"{name}-{fingerprint(certificate)[:16]}.der"


def facts(certificate: x509.Certificate) -> dict[str, object]:
    """What a person has to see before trusting it."""
    names = Names.of(certificate)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": "itself" if self_issued(certificate) else certificate.issuer.rfc4514_string(),
        "valid_from": f"{certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
        "valid_to": f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
        "uris": names.uris,
        "hosts": names.hosts,
        "addresses": names.addresses,
        "fingerprint": fingerprint(certificate),
    }
