"""What a config leaves open on its lines to brokers and OPC UA servers. Each text is "what is wrong; write ..."."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from agent.devices import DEPRECATED
from agent.table import is_file
from agent.tables import Uplink
from agent.wire import Broker

Finding: TypeAlias = tuple[str, str, bool]
"""(key, text, whether it is a problem and not only a warning)."""


def opcua_findings(device: Mapping[str, Any]) -> Iterator[Finding]:
    """Of the security of an OPC UA device's line, and of the user on it. `device` is as the file has it."""
    security = str(device.get("security", "auto"))
    if security == "None":
        wanted = 'write security = "auto", unless the network is one that you trust'
        yield "security", f"nothing is signed or encrypted, and the server is not checked; {wanted}", False
    elif security.partition("/")[0] in DEPRECATED:
        wanted = 'write security = "auto" where the server offers a current policy'
        yield "security", f"{security} is deprecated: its SHA-1 can be forged; {wanted}", False
    yield from _password_findings(device, security)
    pair = [key for key in ("user_certificate", "user_key") if key in device]
    if len(pair) == 1:
        missing = ({"user_certificate", "user_key"} - {*pair}).pop()
        yield pair[0], f"one is of no use without the other; write {missing} as well", True
    elif pair and "username" in device:
        yield "username", "the user has a name and a certificate; write one of them only", True
    elif pair and security == "None":
        text = 'a certificate proves nothing on a line without security; write security = "auto"'
        yield "user_certificate", text, True


def _password_findings(device: Mapping[str, Any], security: str) -> Iterator[Finding]:
    if "password" not in device:
        return
    if "username" not in device:
        yield "password", "a password without a user; write username as well", True
    elif device.get("plain_password") == "allow":
        text = "the password may cross the line unencrypted; write none, or a user who may only read"
        yield "plain_password", text, False
    elif security == "None":
        wanted = 'write security = "auto", or plain_password = "allow"'
        yield "password", f"the password would cross the line unencrypted; {wanted}", True


def uplink_findings(uplink: Uplink) -> Iterator[tuple[tuple[str | int, ...], str, bool]]:
    """As above, but with the place below [uplink]: files that are not there, TLS that is not used, and passwords that
    would cross the line in the open."""
    for name, what in (("ca", "the broker's CA"), ("cert", "a certificate"), ("key", "the certificate's key")):
        path = getattr(uplink, name)
        if path is not None and not is_file(path):
            yield (name,), f"there is no file {path}; write the path of {what} in PEM form", True
    if uplink.key is not None and uplink.cert is None:
        yield ("key",), "a key without a certificate; write cert as well", True
    urls = [uplink.url, *uplink.backup]
    for name in ("ca", "cert"):
        if getattr(uplink, name) is not None and not any(url.startswith("mqtts://") for url in urls):
            yield (name,), 'it is not used without TLS; write url = "mqtts://host:8883"', False
    for at, url in enumerate(urls):
        place: tuple[str | int, ...] = ("backup", at - 1) if at else ("url",)
        broker = Broker.parse(url)
        # A password without TLS is for this machine only, unless the config says that it is meant.
        if broker.tls or broker.password is None or broker.host in ("localhost", "127.0.0.1", "::1"):
            continue
        allowed: str = uplink.insecure_password
        if allowed == "allow":
            yield place, "the password crosses the line unencrypted; write mqtts:// where the broker has TLS", False
        else:
            wanted = 'write mqtts://, or insecure_password = "allow" if you mean it'
            yield place, f"the password would cross the line unencrypted; {wanted}", True
