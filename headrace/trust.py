"""`headrace trust`: shows the certificate of an OPC UA server, asks, and trusts it. A running agent then connects."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509

from agent import config as configs
from agent.collectors.opcua.endpoints import CURRENT, MODES, offered, policy_name
from agent.errors import ConfigError, HeadraceError, Problem
from agent.pki import certificate as certificates
from agent.pki.check import Wanted, faults
from agent.pki.store import Store

SECONDS = 10.0
"""The longest wait for each answer of the server."""


class NotTrusted(HeadraceError):
    """There is nothing to trust, or it is not the one that was named."""


def main(options: argparse.Namespace) -> int:
    """Exit 0 where every certificate of the server is trusted at the end, or with --json was only shown; else 1."""
    url = checked_url(options.url)
    store = Store(pki_of(options))
    endpoints = asyncio.run(offered(url, SECONDS))
    found: dict[bytes, dict[str, Any]] = {}
    for each in endpoints:
        if each.SecurityMode in MODES and each.ServerCertificate:
            known = found.setdefault(bytes(each.ServerCertificate), {"uri": each.Server.ApplicationUri, "policies": []})
            known["policies"].append(f"{policy_name(each.SecurityPolicyUri)}/{MODES[each.SecurityMode]}")
    if not found:
        raise NotTrusted(f'{url} offers no secured endpoint; its device needs security = "None"')
    shown = []
    for content, known in found.items():
        try:
            chain = certificates.read(content)
        except ValueError as reason:
            raise NotTrusted(f"the certificate of {url}: {reason}") from None
        shown.append(_facts(chain, known, store, url))
        if options.fingerprint and _digits(options.fingerprint) != certificates.fingerprint(chain[0]):
            raise NotTrusted(f"the server's certificate has SHA-256 {certificates.grouped(shown[-1]['fingerprint'])}")
        if not options.json:
            _show(shown[-1])
        sure = options.yes or bool(options.fingerprint)
        if not shown[-1]["trusted"] and (sure or (not options.json and _asked(store.place))):
            shown[-1] |= {"trusted": True, "path": str(store.trust(chain[0]))}
            if not options.json:
                print(f"trusted: {shown[-1]['path']}")
    if options.json:
        print(json.dumps({"url": url, "pki": str(store.place), "certificates": shown}, ensure_ascii=False))
        return 0
    return 0 if all(each["trusted"] for each in shown) else 1


def pki_of(options: argparse.Namespace) -> Path:
    """The directory of certificates that a command is to use: --pki, the config's, or the user's own."""
    if options.pki is not None:
        return Path(options.pki)
    if options.config is not None:
        return configs.load(options.config).agent.data_dir / "pki"
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home, "headrace", "pki")


def checked_url(url: str) -> str:
    """Raises ConfigError."""
    parts = urlsplit(url)
    try:
        fine = parts.scheme == "opc.tcp" and bool(parts.hostname) and parts.port is not None and "@" not in parts.netloc
    except ValueError:
        fine = False
    if not fine:
        hint = "write opc.tcp://host:4840, with a /path where the server has one"
        raise ConfigError([Problem("(command line)", "URL", f"{url!r} is not an OPC UA address", hint)])
    return url


def _facts(chain: list[x509.Certificate], known: dict[str, Any], store: Store, url: str) -> dict[str, Any]:
    legacy = not any(each.partition("/")[0] in CURRENT for each in known["policies"])
    least, most = (1024, 2048) if legacy else (2048, 4096)
    wanted = Wanted(str(known["uri"] or ""), urlsplit(url).hostname, known["policies"][0], least, most, sha1=legacy)
    wrong = [each for each in faults(chain, wanted, store.load()) if not each.untrusted]
    return {
        **certificates.facts(chain[0]),
        "application": known["uri"],
        "policies": known["policies"],
        "trusted": store.load().has(chain[0]),
        "problems": [{"code": each.code, "message": each.text} for each in wrong],
    }


def _show(facts: dict[str, Any]) -> None:
    names = ", ".join([*facts["hosts"], *facts["addresses"]]) or "(none)"
    for name, value in (
        ("subject", facts["subject"]),
        ("issued by", facts["issuer"]),
        ("valid", f"{facts['valid_from']} to {facts['valid_to']}"),
        ("application", ", ".join(facts["uris"]) or "(none)"),
        ("hosts", names),
        ("SHA-256", certificates.grouped(facts["fingerprint"])),
        ("endpoints", ", ".join(facts["policies"])),
    ):
        print(f"{name:12} {value}")
    for problem in facts["problems"]:
        print(f"{'problem':12} {problem['code']}: {problem['message']}")
    if facts["trusted"]:
        print("it is trusted already")


def _asked(place: Path) -> bool:
    print(f"Compare the SHA-256 with what the server itself shows. Trust it in {place}? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _digits(text: str) -> str:
    return "".join(each for each in text.lower() if each in "0123456789abcdef")
