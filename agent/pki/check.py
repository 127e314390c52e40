"""Whether a server may be who it says: the rules of OPC 10000-4, 6.1.3, and what a refusal says.

Two of them are ours. A server whose very certificate lies in trusted/ needs no chain and no CRL: who put it there has
compared it. And a CRL that is out of date counts as missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.x509.oid import ExtendedKeyUsageOID

from agent.pki.certificate import DEEPEST, Names, self_issued
from agent.pki.store import Trust

_WEAK = ("md5", "sha1")
_UNTRUSTED = ("BadCertificateUntrusted", "BadCertificateChainIncomplete")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: the StatusCode's name of OPC 10000-4, and what a person has to know."""

    code: str
    text: str

    @property
    def untrusted(self) -> bool:
        """Whether trusting the certificate would mend it."""
        return self.code in _UNTRUSTED

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the certificate has to fit. `host` is None where names do not count."""

    uri: str
    host: str | None
    policy: str = ""
    least_bits: int = 2048
    most_bits: int = 4096
    sha1: bool = False


def faults(chain: Sequence[x509.Certificate], wanted: Wanted, trust: Trust, now: datetime | None = None) -> list[Fault]:
    """What is wrong with a server's certificate, `chain[0]`, in the order of the specification; none where it is good.

    `chain` has the certificates that the server sent with it, if any."""
    now = now or datetime.now(UTC)
    leaf = chain[0]
    line, broken = _line(chain, trust)
    found = [*broken, *_strength(leaf, wanted)]
    if not broken and not any(map(trust.has, line)):
        found.append(Fault("BadCertificateUntrusted", "nobody has trusted it, or a CA of it"))
    found += _time(leaf, now, "BadCertificateTimeInvalid", "it")
    found += _names(leaf, wanted)
    found += _usage(leaf)
    for below, issuer in enumerate(line[1:]):
        found += _issuer(issuer, below, now)
    return found + _revocation(line, trust, now)


def _line(chain: Sequence[x509.Certificate], trust: Trust) -> tuple[list[x509.Certificate], list[Fault]]:
    """The certificate and its issuers, as far as they are known; and what is wrong with their signatures."""
    line = [chain[0]]
    known = [*trust.trusted, *trust.issuers, *chain[1:]]
    while not self_issued(line[-1]) and len(line) <= DEEPEST:
        named = [each for each in known if each.subject == line[-1].issuer]
        issuer = next((each for each in named if _signed(line[-1], each)), None)
        if issuer is None and named:
            return line, [Fault("BadCertificateInvalid", "its signature is broken: its issuer did not sign this")]
        if issuer is None:
            break
        line.append(issuer)
    if self_issued(line[-1]) and not _signed(line[-1], line[-1]):
        return line, [Fault("BadCertificateInvalid", "its signature is broken: its own key did not sign this")]
    if not self_issued(line[-1]) and not any(map(trust.has, line)):
        issuer_name = line[-1].issuer.rfc4514_string()
        text = f"its issuer {issuer_name} is not known; put the CA into trusted/ or issuers/, or trust this certificate"
        return line, [Fault("BadCertificateChainIncomplete", text)]
    return line, []


def _signed(child: x509.Certificate, parent: x509.Certificate) -> bool:
    key = parent.public_key()
    try:
        if _digest(child) == "sha1" and isinstance(key, RSAPublicKey):  # not verified by the library any more
            key.verify(child.signature, child.tbs_certificate_bytes, PKCS1v15(), SHA1())  # noqa: S303
        else:
            child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _strength(leaf: x509.Certificate, wanted: Wanted) -> list[Fault]:
    found = []
    code = "BadCertificatePolicyCheckFailed"
    key = leaf.public_key()
    if not isinstance(key, RSAPublicKey):
        kind = "an elliptic curve" if isinstance(key, EllipticCurvePublicKey) else "no RSA"
        found.append(Fault(code, f"it has {kind} key, and the policy {wanted.policy} wants RSA"))
    elif not wanted.least_bits <= key.key_size <= wanted.most_bits:
        bounds = f"{wanted.least_bits} to {wanted.most_bits} bits"
        found.append(Fault(code, f"its key has {key.key_size} bits, and the policy {wanted.policy} wants {bounds}"))
    name = _digest(leaf)
    if name in _WEAK and not (wanted.sha1 and name == "sha1"):
        found.append(Fault(code, f"it is signed with {name.upper()}, which can be forged"))
    return found


def _digest(certificate: x509.Certificate) -> str:
    try:
        found = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "an unknown hash"
    return found.name if found else "no hash"


def _time(each: x509.Certificate, now: datetime, code: str, name: str) -> list[Fault]:
    if now > each.not_valid_after_utc:
        return [Fault(code, f"{name} expired on {each.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")]
    if now < each.not_valid_before_utc:
        text = f"{name} is not valid before {each.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; is a clock wrong?"
        return [Fault(code, text)]
    return []


def _names(leaf: x509.Certificate, wanted: Wanted) -> list[Fault]:
    names = Names.of(leaf)
    if not names.uris:
        return [Fault("BadCertificateUriInvalid", "it is no application's: it names no ApplicationUri")]
    found = []
    if wanted.host is not None and not names.has_host(wanted.host):
        given = ", ".join([*names.hosts, *names.addresses]) or "no host"
        text = f'it is for {given}, not for {wanted.host}; write one of these in the url, or hostname = "ignore"'
        found.append(Fault("BadCertificateHostNameInvalid", text))
    if wanted.uri not in names.uris:
        text = f"it is for {', '.join(names.uris)}, and the server calls itself {wanted.uri or 'nothing'}"
        found.append(Fault("BadCertificateUriInvalid", text))
    return found


def _usage(leaf: x509.Certificate) -> list[Fault]:
    code = "BadCertificateUseNotAllowed"
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return [Fault(code, "it does not say what its key may be used for")]
    wanted = {
        "sign": usage.digital_signature,
        "encrypt keys": usage.key_encipherment,
        "encrypt data": usage.data_encipherment,
    }
    missing = [name for name, there in wanted.items() if not there]
    found = [Fault(code, f"its key may not {' or '.join(missing)}")] if missing else []
    try:
        extended = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return found
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(extended):
        found.append(Fault(code, "it is not for a server (extended key usage)"))
    return found


def _issuer(issuer: x509.Certificate, below: int, now: datetime) -> list[Fault]:
    """`below` is how many CAs are between it and the server."""
    name = f"its issuer {issuer.subject.rfc4514_string()}"
    found = _time(issuer, now, "BadCertificateIssuerTimeInvalid", name)
    try:
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        is_ca = limits.ca and (limits.path_length is None or below <= limits.path_length)
        may_sign = issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        is_ca = may_sign = False
    if not (is_ca and may_sign):
        found.append(Fault("BadCertificateIssuerUseNotAllowed", f"{name} is no CA"))
    return found


def _revocation(line: Sequence[x509.Certificate], trust: Trust, now: datetime) -> list[Fault]:
    found = []
    for depth, (child, issuer) in enumerate(pairwise(line)):
        part = "Issuer" if depth else ""
        name = f"the issuer {child.subject.rfc4514_string()}" if depth else "it"
        lists = [each for each in trust.crls if each.issuer == issuer.subject and _signed_list(each, issuer)]
        if any(each.get_revoked_certificate_by_serial_number(child.serial_number) for each in lists):
            found.append(Fault(f"BadCertificate{part}Revoked", f"{name} was revoked by its issuer"))
        elif not trust.has(child) and not any(_current(each, now) for each in lists):
            state = "the CRL of its issuer is out of date" if lists else "there is no CRL of its issuer"
            issued_by = issuer.subject.rfc4514_string()
            text = f"whether {name} was revoked is not known: {state}; put that of {issued_by} into crl/"
            found.append(Fault(f"BadCertificate{part}RevocationUnknown", text))
    return found


def _signed_list(each: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return each.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # it says TypeError for others
    except (TypeError, ValueError, UnsupportedAlgorithm):
        return False


def _current(each: x509.CertificateRevocationList, now: datetime) -> bool:
    return each.next_update_utc is None or now <= each.next_update_utc
