"""What only the whole config can tell of labels, egress and the resolver. Each text is "what is wrong; write ..."."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from agent import quantity
from agent.labels import LabelRules
from agent.model import Tag
from agent.policy import MAIN, TLS, Labelled, Policy, Way
from agent.sharing import Egress, Resolver
from agent.table import is_file
from agent.tables import DataCenter, Uplink
from agent.taglist import TagList
from agent.wire import Broker


def label_problems(tags: Sequence[Tag], lists: Sequence[TagList], rules: LabelRules) -> Iterator[tuple[TagList, str]]:
    """(list, text) where labels are required and a tag has none; `lists` has the list of each tag."""
    if not rules.required:
        return
    missing: dict[int, tuple[TagList, str, int]] = {}
    for tag, tag_list in zip(tags, lists, strict=True):
        if not tag.domain or tag.level is None:
            _, first, count = missing.get(id(tag_list), (tag_list, tag.name, 0))
            missing[id(tag_list)] = (tag_list, first, count + 1)
    for tag_list, first, count in missing.values():
        yield (
            tag_list,
            (
                f"{count} tags have no domain or no level, the first is {quantity.shown(first)}; write both in the tag "
                "list, or for the device, or in [labels]"
            ),
        )


def egress_findings(
    tags: Sequence[Labelled], egress: Egress | None, uplink: Uplink
) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """(field, text, whether it is a problem and not only a warning)."""
    policy = Policy(egress, uplink)
    ways: Counter[Way] = Counter()
    first: dict[Way, str] = {}
    for tag in tags:
        way = policy.way(tag)
        ways[way] += 1
        first.setdefault(way, tag.identifier)
    for way, count in ways.items():
        name = quantity.shown(first[way])
        if way.reason == TLS:
            level = egress.tls_from_level if egress else 3
            text = f"{count} tags of level {level} or more would leave without TLS, the first is {name}"
            yield ("egress", "tls_from_level"), f"{text}; write mqtts:// in the url of the uplink", True
        elif way.uplink is None:
            text = f"{count} of {len(tags)} tags may not leave ({way.reason}), the first is {name}"
            yield ("egress",), f"{text}; write a rule that allows them if they should", False
    host = Broker.parse(uplink.url).host
    plain = not Broker.parse(uplink.url).tls and host not in ("localhost", "::1") and not host.startswith("127.")
    if plain and any((tag.level or 1) >= 3 and policy.way(tag).uplink == MAIN for tag in tags):
        text = "readings of level 3 leave this machine without TLS"
        yield ("uplink", "url"), f"{text}; write mqtts://, or [egress] tls_from_level = 3 to forbid it", False
    if egress and egress.level3 and _place(egress.level3) == _place(uplink):
        text = "level 3 would have the broker that everything else has"
        yield ("egress", "level3"), f"{text}; write another one, or leave level3 out", True
    if egress and egress.level3 and not any((tag.level or 1) >= 3 for tag in tags):
        yield ("egress", "level3"), "no tag is of level 3, so nothing goes there; write level = 3 for some", False


def resolver_findings(resolver: Resolver | None) -> Iterator[tuple[str, str]]:
    """(field, text) of what does not fit together."""
    if resolver is None:
        return
    for name in ("ca", "roots", "key"):
        path = getattr(resolver, name)
        if path is not None and not is_file(path):
            yield name, f"there is no file {path}; write the path of a PEM file"
    if resolver.dialect == "snms" and not (resolver.username and resolver.password):
        yield "username", "a second-level node wants a user; write username and password"
    if resolver.dialect == "idhub" and not (resolver.key and resolver.application):
        yield "key", "an enterprise node wants a signature; write key and application"
    if resolver.password and resolver.url.startswith("http://") and not _here(resolver.url):
        yield "password", "the password would cross the network unencrypted; write https:// in url"


def center_findings(center: DataCenter | None) -> Iterator[tuple[str, str]]:
    """(field, text) of what the data center leaves open."""
    if center is not None and center.access == "open" and not quantity.on_this_machine(center.http):
        text = 'other machines reach it, and whoever does may read everything; write access = "token"'
        yield "http", f'{text}, or http = "127.0.0.1:8080"'


def _place(uplink: Uplink) -> tuple[str, int]:
    broker = Broker.parse(uplink.url)
    return broker.host, broker.port


def _here(url: str) -> bool:
    return any(url.startswith(f"http://{host}") for host in ("127.", "localhost", "[::1]"))
