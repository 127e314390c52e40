"""What a server offers, and which of it is taken (OPC 10000-4, 5.5.4 and 7.14)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from asyncua import ua
from asyncua.client.client import Client
from asyncua.crypto import security_policies as asyncua_policies

from agent.collectors.opcua.link import FAULTS, dial, said, within
from agent.collectors.opcua.transport import bounded
from agent.config import OpcUaDevice
from agent.errors import NotConnected

POLICIES = {
    "Aes256_Sha256_RsaPss": asyncua_policies.SecurityPolicyAes256Sha256RsaPss,
    "Aes128_Sha256_RsaOaep": asyncua_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Basic256Sha256": asyncua_policies.SecurityPolicyBasic256Sha256,
    "Basic256": asyncua_policies.SecurityPolicyBasic256,
    "Basic128Rsa15": asyncua_policies.SecurityPolicyBasic128Rsa15,
}
"""The strongest first."""
CURRENT = ("Aes256_Sha256_RsaPss", "Aes128_Sha256_RsaOaep", "Basic256Sha256")
MODES = {ua.MessageSecurityMode.SignAndEncrypt: "SignAndEncrypt", ua.MessageSecurityMode.Sign: "Sign"}
"""The stronger first."""
_TCP = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"
_KINDS = {
    ua.UserTokenType.Anonymous: "anonymous users",
    ua.UserTokenType.UserName: "user names",
    ua.UserTokenType.Certificate: "user certificates",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """The endpoint that is taken."""

    policy: str
    mode: ua.MessageSecurityMode
    certificate: bytes
    """The server's, with its chain where it sends one."""
    uri: str
    """What the server calls itself."""
    tokens: tuple[tuple[str, int, str], ...]
    """How users may identify themselves: (PolicyId, kind, policy that protects the secret)."""

    @property
    def name(self) -> str:
        return f"{self.policy}/{MODES[self.mode]}"


def policy_name(uri: str | None) -> str:
    return (uri or "").rpartition("#")[2]


def identity(device: OpcUaDevice) -> ua.UserTokenType:
    """How a device's config identifies its user."""
    if device.user_certificate is not None:
        return ua.UserTokenType.Certificate
    return ua.UserTokenType.UserName if device.username else ua.UserTokenType.Anonymous


def choose(endpoints: Iterable[ua.EndpointDescription], device: OpcUaDevice) -> Choice:
    """The strongest endpoint that the config allows: encryption before a policy's rank, and never by chance one
    without security. Raises NotConnected that says what there is."""
    known = [each for each in endpoints if each.TransportProfileUri in (None, "", _TCP)]
    asked = device.security
    found = [
        each
        for each in known
        if each.SecurityMode in MODES
        and (name := policy_name(each.SecurityPolicyUri)) in (CURRENT if asked == "auto" else POLICIES)
        and asked in ("auto", f"{name}/{MODES[each.SecurityMode]}")
    ]
    if not found:
        offered = ", ".join(sorted({_named(each) for each in known})) or "nothing"
        wanted = "a current security policy" if asked == "auto" else asked
        raise NotConnected(f"the server offers no endpoint with {wanted}; it offers {offered}")
    kind = identity(device)
    fitting = [each for each in found if kind in {token.TokenType for token in each.UserIdentityTokens or ()}]
    if not fitting:
        raise NotConnected(f"the server takes no {_KINDS[kind]} at an endpoint with security {asked}")
    return _choice(min(fitting, key=_rank))


def _rank(endpoint: ua.EndpointDescription) -> tuple[int, int]:
    policy = policy_name(endpoint.SecurityPolicyUri)
    return list(MODES).index(endpoint.SecurityMode), list(POLICIES).index(policy)


def _choice(endpoint: ua.EndpointDescription) -> Choice:
    tokens = {
        (str(each.PolicyId), int(each.TokenType), policy_name(each.SecurityPolicyUri))
        for each in endpoint.UserIdentityTokens or ()
    }
    return Choice(
        policy_name(endpoint.SecurityPolicyUri),
        endpoint.SecurityMode,
        bytes(endpoint.ServerCertificate or b""),
        str(endpoint.Server.ApplicationUri or ""),
        tuple(sorted(tokens)),
    )


def _named(endpoint: ua.EndpointDescription) -> str:
    policy = policy_name(endpoint.SecurityPolicyUri) or "nothing"
    return f"{policy}/{MODES[endpoint.SecurityMode]}" if endpoint.SecurityMode in MODES else policy


async def offered(url: str, seconds: float) -> Sequence[ua.EndpointDescription]:
    """Asks a server, over a channel without security, which endpoints it has; each answer
    within so many seconds. Raises NotConnected."""
    client = bounded(Client(url, timeout=seconds))
    client.uaclient.pre_request_hook = None
    try:
        await dial(client, seconds)
        await within(seconds, client.send_hello())
        await within(seconds, client.open_secure_channel())
        return await within(seconds, client.get_endpoints()) or ()
    except NotConnected:
        raise
    except FAULTS as reason:
        raise NotConnected(f"{said(reason)}, when asked for its endpoints") from reason
    except Exception as reason:  # asyncua raises whatever comes up on an answer that it does not expect
        raise NotConnected(f"the server does not say which endpoints it has ({said(reason)})") from reason
    finally:
        protocol = client.uaclient.protocol
        if protocol is not None:
            transport = protocol.transport
            with contextlib.suppress(Exception):  # it is over, however it ends
                await within(0.5, protocol.close_secure_channel())
            client.disconnect_socket()
            if transport is not None:
                transport.abort()
