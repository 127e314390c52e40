"""Who may come in at a virtual OPC UA server, and by which endpoints: what the config's devices ask for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asyncua import ua
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.server.server import Server

from agent.config import OpcUaDevice
from agent.pki import certificate as certificates
from agent.pki.store import Store
from simulators import certificate

APPLICATION_URI = "urn:headrace:simulator"
_AUTO = tuple(
    f"{policy}/{mode}"
    for policy in ("Aes256_Sha256_RsaPss", "Aes128_Sha256_RsaOaep", "Basic256Sha256")
    for mode in ("SignAndEncrypt", "Sign")
)
"""What a server offers to who takes the strongest."""


@dataclass(frozen=True, slots=True)
class Access:
    """What one server offers. Left out: one endpoint without security, for everybody."""

    securities: tuple[str, ...] = ("None",)
    """`None`, or a policy and its mode such as `Basic256Sha256/SignAndEncrypt`."""
    users: Mapping[str | None, str] = field(default_factory=lambda: {None: ""})
    """Passwords by name, and None for those without one."""
    certificates: frozenset[bytes] = frozenset()
    """Of users that have one instead of a name, in DER."""
    own: tuple[Path, Path] | None = None
    """The server's certificate in DER and its key in PEM, where an endpoint has security."""

    @classmethod
    def of(cls, devices: Iterable[OpcUaDevice], own: Path) -> Access:
        """What the devices behind one address need between them. `own`: where the server's certificate is, or is to
        be. Raises OSError, and ValueError for a user's certificate that can't be read."""
        devices = tuple(devices)
        wanted = dict.fromkeys(each for device in devices for each in _securities(device.security))
        users: dict[str | None, str] = {}
        shown = set()
        for device in devices:
            if device.user_certificate is not None:
                shown.add(certificates.der(certificates.read(device.user_certificate.read_bytes())[0]))
            else:
                users[device.username] = device.password or ""
        secure = any(each != "None" for each in wanted)
        return cls(
            tuple(wanted), users, frozenset(shown), certificate.application(own, APPLICATION_URI) if secure else None
        )

    def trusted_by(self, devices: Iterable[OpcUaDevice]) -> list[Path]:
        """Puts the server's certificate where the agent of these devices trusts it, as who commissions a real one does.
        It is for this machine's loopback addresses only. Returns the files. Raises OSError."""
        if self.own is None:
            return []
        own = certificates.read(self.own[0].read_bytes())[0]
        return [Store(pki).trust(own) for pki in dict.fromkeys(device.pki for device in devices)]

    async def apply(self, server: Server) -> None:
        """Before the server starts."""
        policies = [_policy(each) for each in self.securities]
        if self.own is not None:
            await server.load_certificate(self.own[0])
            await server.load_private_key(self.own[1])
        server.set_security_policy(policies)
        names = any(name is not None for name in self.users)
        tokens = {
            ua.AnonymousIdentityToken: None in self.users,
            ua.UserNameIdentityToken: names,
            ua.X509IdentityToken: bool(self.certificates),
        }
        server.set_identity_tokens([token for token, wanted in tokens.items() if wanted])

    def get_user(
        self,
        iserver: object,  # noqa: ARG002  (asyncua calls it so)
        username: str | None = None,
        password: str | bytes | None = None,
        certificate: bytes | None = None,
    ) -> User | None:
        """The user of a new session; None where there is no such."""
        said = password.decode(errors="replace") if isinstance(password, bytes) else password
        if username is not None:
            known = self.users.get(username) == said
        else:
            known = None in self.users or certificate in self.certificates
        return User(role=UserRole.User, name=username) if known else None


def _securities(security: str) -> tuple[str, ...]:
    return _AUTO if security == "auto" else (security,)


def _policy(security: str) -> ua.SecurityPolicyType:
    """asyncua's name for a policy and mode, such as Aes128Sha256RsaOaep_Sign."""
    if security == "None":
        return ua.SecurityPolicyType.NoSecurity
    policy, _, mode = security.partition("/")
    return ua.SecurityPolicyType[f"{policy.replace('_', '')}_{mode}"]
