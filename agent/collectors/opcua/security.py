"""How the line to a server is secured: which endpoint, who we say we are, and whether the server is who it says.

It fails closed: without a certificate that passed `agent.pki.check` there is no channel, unless the config says "None".
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import time
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from agent.collectors.opcua.endpoints import CURRENT, POLICIES, Choice, choose, identity, offered, policy_name
from agent.collectors.opcua.link import FAULTS, said
from agent.config import OpcUaDevice
from agent.errors import NotConnected
from agent.pki import certificate as certificates
from agent.pki.check import Fault, Wanted, faults
from agent.pki.own import Own, Pair, Unusable, read_pair
from agent.pki.store import Stamp, Store

log = logging.getLogger("headrace.collector")

WARN_DAYS = 30
LOOK_SECONDS = 0.5
"""Between looks at the trust store while its server is refused."""
ASK_SECONDS = 30.0
"""Between questions for the certificate of a server that is refused: it may have another one by now."""
LONGEST_WAIT = 300.0
"""The longest that one attempt to connect waits to be told that a server is trusted."""
WATCH_SECONDS = 5.0
"""Between looks at the trust store while there is a connection."""
_DROPPED = ("BadCertificateUntrusted", "BadCertificateRevoked", "BadCertificateIssuerRevoked")
"""What ends a connection that exists. A certificate that expires only keeps the next one from being made."""
Answer = TypeVar("Answer")


class Security:
    """What one device's connections have in common."""

    def __init__(self, device: OpcUaDevice, counters: dict[str, int]) -> None:
        self._device = device
        self._counters = counters
        self._own = Own(device.pki, device.application_uri)
        self._store = Store(device.pki)
        self._choice: Choice | None = None
        self._refusal: tuple[Stamp, str] | None = None
        self._shown: Pair | None = None
        self._unwelcome: dict[str, float] = {}
        """Fingerprints of ours that the server would not have, and when."""
        self._said: set[str] = set()

    async def prepare(self, client: Client) -> None:
        """Before the channel is opened: asks the server what it offers, checks its certificate, and gives the client
        its keys. Raises NotConnected with the reason and what to do."""
        client.application_uri = self._device.application_uri
        await self._identify(client)
        if self._device.security == "None":
            return
        if self._refusal is not None:
            await self._wait(*self._refusal)
        if self._choice is None:
            self._choice = choose(await offered(self._device.url, self._device.timeout), self._device)
        choice = self._choice
        try:
            pair, chain, stamp, wrong = await asyncio.to_thread(self._look, choice)
        except (Unusable, OSError) as reason:
            self._say("own_certificate_unusable", str(reason))
            raise NotConnected(str(reason)) from reason
        if wrong:
            text = await self._refuse(chain, wrong)
            self._refusal = stamp, text
            raise NotConnected(text)
        self._refusal, self._shown = None, pair
        policy: Any = POLICIES[choice.policy]
        client.application_uri = pair.uri
        client.security_policy = policy(chain[0], pair.certificate, pair.key, choice.mode, host_cert_chain=pair.issuers)
        client.uaclient.set_security(client.security_policy)

    def agreed(self, endpoints: Iterable[ua.EndpointDescription]) -> None:
        """What the server says on the secured channel has to be what it said before there was one: else somebody on
        the way may have hidden a stronger endpoint (OPC 10000-4, 5.7.2). Raises NotConnected."""
        before = self._choice
        if before is None:
            return
        try:
            now = choose(endpoints, self._device)
        except NotConnected as reason:
            raise self._mismatch(str(reason)) from reason
        same = (now.policy, now.mode, now.tokens) == (before.policy, before.mode, before.tokens)
        if not same:
            raise self._mismatch(f"it was {before.name}, and now it is {now.name} or identifies users otherwise")
        if now.certificate and now.certificate != before.certificate:
            raise self._mismatch("its certificate is another one")

    def allowed(self, client: Client) -> None:
        """Before the user is named: takes the best protection of its secret that the server has.

        Raises NotConnected where a password would cross the line readable."""
        kind = identity(self._device)
        tokens = sorted(client._policy_ids or (), key=lambda each: self._token_rank(client, each))
        client._policy_ids = tokens
        if kind is not ua.UserTokenType.UserName or self._device.plain_password == "allow":  # noqa: S105
            return
        policy = policy_name(client.server_policy(kind).SecurityPolicyUri)
        encrypted = client.security_policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
        if not encrypted and (self._device.security == "None" or policy not in CURRENT):
            raise NotConnected(
                "the password would cross the line unencrypted; choose an endpoint with SignAndEncrypt, "
                'or write plain_password = "allow"'
            )

    def not_opened(self, reason: BaseException) -> NotConnected:
        """What a fault means that came while the secured channel was being made."""
        if self._device.security == "None":
            return NotConnected(said(reason))
        name = self._choice.name if self._choice else self._device.security
        self._choice = None  # the server may have another certificate by now
        if self._shown is None:
            return NotConnected(said(reason))
        if not isinstance(reason, TimeoutError):
            self._unwelcome[self._shown.fingerprint] = time.monotonic()
        return NotConnected(
            f"{said(reason)}, when the channel was to be secured with {name}; does the server trust "
            f"{self._shown.path} (SHA-256 {certificates.grouped(self._shown.fingerprint)})?"
        )

    def renewed(self) -> None:
        """Counts new keys of the channel."""
        self._counters["channel_renewals"] = self._counters.get("channel_renewals", 0) + 1

    async def proven(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Runs what checks the server's signature. asyncua's error for a wrong one is none that others know."""
        try:
            return await work
        except InvalidSignature as reason:
            raise self._mismatch("it can't prove that the certificate is its own") from reason

    async def watch(self, lost: Callable[[str], None]) -> None:
        """While there is a connection: ends it where its certificate is trusted no longer; counts days."""
        choice = self._choice
        if choice is None:
            return
        stamp, looked = None, -1e9
        while True:
            new = await asyncio.to_thread(self._store.stamp)
            if new != stamp or time.monotonic() - looked > 3600:
                stamp, looked = new, time.monotonic()
                try:
                    pair, chain, _, wrong = await asyncio.to_thread(self._look, choice)
                except (Unusable, OSError) as reason:
                    self._say("own_certificate_unusable", str(reason))
                else:
                    self._count("own", pair.certificate, str(pair.path))
                    self._count("server", chain[0], self._device.url)
                    ended = [each for each in wrong if each.code in _DROPPED]
                    if ended:
                        lost(await self._refuse(chain, ended))
                        return
            await asyncio.sleep(WATCH_SECONDS)

    def _look(self, choice: Choice) -> tuple[Pair, list[x509.Certificate], Stamp, list[Fault]]:
        """Blocks: files and signatures."""
        legacy = choice.policy not in CURRENT
        pairs = self._own.pairs(legacy=legacy)
        an_hour_ago = time.monotonic() - 3600
        pair = next((each for each in pairs if self._unwelcome.get(each.fingerprint, -1e9) < an_hour_ago), pairs[0])
        stamp = self._store.stamp()
        try:
            chain = certificates.read(choice.certificate)
        except ValueError as reason:
            return pair, [], stamp, [Fault("BadCertificateInvalid", str(reason))]
        least, most = (1024, 2048) if legacy else (2048, 4096)
        host = urlsplit(self._device.url).hostname if self._device.hostname == "check" else None
        wanted = Wanted(choice.uri, host, choice.policy, least, most, sha1=legacy)
        return pair, chain, stamp, faults(chain, wanted, self._store.load())

    async def _refuse(self, chain: list[x509.Certificate], wrong: list[Fault]) -> str:
        """Keeps the certificate in rejected/ and says why, once for each reason. Returns what was said."""
        text = f"the server's certificate is refused: {'; '.join(map(str, wrong))}"
        path = None
        if chain:
            digits = certificates.fingerprint(chain[0])
            text += f" (SHA-256 {certificates.grouped(digits)})"
            try:
                path = await asyncio.to_thread(self._store.reject, chain[0])
            except OSError as reason:
                text += f"; it can't be kept: {reason}"
        if any(each.untrusted for each in wrong):
            place = shlex.quote(str(self._device.pki))
            text += f"; if it is the right one: headrace trust {self._device.url} --pki {place}"
        if text not in self._said:
            self._counters["refused_certificates"] = self._counters.get("refused_certificates", 0) + 1
        self._say("server_refused", text, codes=[each.code for each in wrong], path=str(path or ""))
        return text

    async def _wait(self, stamp: Stamp, text: str) -> None:
        """Returns when the trust store has changed, or the server may have; raises NotConnected after a while."""
        loop = asyncio.get_running_loop()
        until, ask = loop.time() + LONGEST_WAIT, loop.time() + ASK_SECONDS
        while await asyncio.to_thread(self._store.stamp) == stamp:
            if loop.time() >= ask:
                ask = loop.time() + ASK_SECONDS
                new = choose(await offered(self._device.url, self._device.timeout), self._device)
                if new != self._choice:
                    self._choice = new
                    return
            if loop.time() >= until:
                self._choice = None
                raise NotConnected(text)
            await asyncio.sleep(LOOK_SECONDS)

    async def _identify(self, client: Client) -> None:
        device = self._device
        if device.username:
            client.set_user(device.username)
            client.set_password(device.password or "")
        if device.user_certificate is None or device.user_key is None:
            return
        try:
            user = await asyncio.to_thread(read_pair, device.user_certificate, device.user_key)
        except (Unusable, OSError) as reason:
            raise NotConnected(f"the user's certificate can't be used: {reason}") from reason
        client.user_certificate, client.user_private_key = user.certificate, user.key
        client.user_certificate_chain = user.issuers

    def _token_rank(self, client: Client, token: ua.UserTokenPolicy) -> int:
        name = policy_name(token.SecurityPolicyUri or client.security_policy.URI)
        return list(POLICIES).index(name) if name in POLICIES else len(POLICIES)

    def _mismatch(self, what: str) -> NotConnected:
        self._choice = None
        text = f"BadSecurityChecksFailed: the server is not the one that it was a moment ago: {what}"
        self._say("server_refused", text, codes=["BadSecurityChecksFailed"])
        return NotConnected(text)

    def _count(self, whose: str, certificate: x509.Certificate, place: str) -> None:
        days = certificates.days_left(certificate, datetime.now(UTC))
        self._counters[f"{whose}_certificate_days"] = days
        if days < WARN_DAYS:
            name = "our certificate" if whose == "own" else "the server's certificate"
            text = f"{name} expires on {certificate.not_valid_after_utc:%Y-%m-%d}: {place}"
            self._say("certificate_expires", text, days=days)

    def _say(self, event: str, text: str, **facts: object) -> None:
        """Once for each text."""
        if text in self._said:
            return
        if len(self._said) > 100:
            self._said.clear()
        self._said.add(text)
        known = {"event": event, "device": self._device.name, **facts}
        log.warning("%s: %s", self._device.name, text, extra=known)


__all__ = ["FAULTS", "Security"]
