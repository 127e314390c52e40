"""The commands and their options. Each imports what it needs when it is used: `headrace run` never loads a database."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

_TIME = re.compile(r"([0-9]{1,9}\.?[0-9]{0,9}|\.[0-9]{1,9})\s*(ms|s|m|h|)")
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
Command: TypeAlias = Callable[[argparse.Namespace], int]


def _at(module: str, name: str = "main") -> partial[int]:
    """The command that a module of this package has under a name."""
    return partial(_run, module, name)


def _run(module: str, name: str, options: argparse.Namespace) -> int:
    found: Command = getattr(import_module(f"headrace.{module}"), name)
    return found(options)


def _seconds(text: str) -> float:
    """Seconds of 20, 20s, 500ms, 1.5m or 1h."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time of zero or more; write 20, 20s, 500ms or 5m")
    return float(found[1]) * _UNITS[found[2]]


def _duration(text: str) -> float:
    found = _seconds(text)
    if not found < 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is an hour or more; write 20ms or 1.5s")
    return found


def _above_zero(text: str) -> float:
    if (found := _seconds(text)) > 0:
        return found
    raise argparse.ArgumentTypeError(f"{text!r} is not above zero; write 0.5")


def _count(most: int) -> Callable[[str], int]:
    """A whole number from 1 to `most`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 12 and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number from 1 to {most}; write one")
        return int(text)

    return read


def _planned(made: argparse.ArgumentParser) -> None:
    made.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file; see `headrace init`")
    made.add_argument("--rtt", type=_duration, default=0.010, help="round trip on a network (default 10ms)")
    made.add_argument(
        "--turnaround", type=_duration, default=0.010, help="until a serial device answers (default 10ms)"
    )
    made.add_argument("--connect", action="store_true", help="ask the OPC UA servers what they can take")


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="headrace",
        description="Carries a plant's readings from OPC UA and Modbus devices to an edge data center, each once.",
    )
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument("--log-format", choices=["text", "json"], default="text", help="log lines on stderr")
    top.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name: str, help: str, run: Command) -> argparse.ArgumentParser:  # noqa: A002
        made = commands.add_parser(name, help=help, description=help)
        made.add_argument("--json", action="store_true", help="print facts as JSON")
        # The same options after the command, where people type them; SUPPRESS keeps what stood before it.
        made.add_argument("--log-format", choices=["text", "json"], default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        made.add_argument(
            "--log-level",
            choices=["debug", "info", "warning", "error"],
            default=argparse.SUPPRESS,
            help=argparse.SUPPRESS,
        )
        made.set_defaults(run=run)
        return made

    def config(made: argparse.ArgumentParser) -> None:
        made.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file; see `headrace init`")

    demo = command("demo", "a virtual plant, a broker, an agent and a data center, verified end to end", _at("demo"))
    demo.add_argument("--seconds", type=_above_zero, default=20.0, help="how long to collect (default 20)")
    demo.add_argument("--outage", type=_seconds, default=0.0, help="stop the broker in the middle for so long, e.g. 5s")
    demo.add_argument("--broker", choices=["auto", "mosquitto", "nats"], default="auto")
    demo.add_argument("--seed", type=int, default=1, help="seed of the virtual plant")
    demo.add_argument("--keep", type=Path, metavar="DIR", help="keep config, outbox, store and logs here")

    command("init", "write a commented config and a tag list to start from", _at("starter")).add_argument(
        "directory", type=Path, nargs="?", default=Path()
    )

    config(command("check", "find every problem of a config", _at("facts", "check")))

    _planned(command("plan", "what a config would do: requests, time on the line, bytes a day", _at("plan")))

    run = command("run", "run the agent", _at("processes", "agent"))
    config(run)
    run.add_argument("--drain", type=_seconds, default=1.5, help="seconds of delivery after a stop (default 1.5)")

    play = command(
        "simulate",
        "virtual devices at the very addresses of a config, with its very tags",
        _at("processes", "simulate"),
    )
    _simulate_options(play)

    _verify_options(
        command("verify", "compare what a data center stored with what the simulated plant had", _at("verify"))
    )

    _look(command)

    config(command("datacenter", "run the edge data center", _at("processes", "datacenter")))

    _identifier_options(command)

    _sharing(command, config)

    reconcile = command(
        "reconcile", "whether everything that agents accepted has arrived, or what is missing", _at("reconcile")
    )
    reconcile.add_argument("identifier", metavar="IDENTIFIER", nargs="?", help="only the streams that carry it")
    reconcile.add_argument("--url", default="http://127.0.0.1:8080", help="the data center (default %(default)s)")
    reconcile.add_argument("--from", dest="start", metavar="TIME", help="RFC 3339 or ns since 1970")
    reconcile.add_argument("--to", dest="end", metavar="TIME", help="left out: as far as each stream is known")

    decode = command("decode", "what is in blocks and exported files", _at("decode"))
    decode.add_argument("files", nargs="+", metavar="FILE", help="a block or an exported file; - is stdin")
    decode.add_argument("--format", choices=["table", "json", "csv", "parquet"], default="table")
    decode.add_argument("--header", action="store_true", help="only what a block says of itself, not its readings")
    decode.add_argument("--output", type=Path, metavar="FILE", help="write to a file instead of stdout")
    _outbox_verbs(
        command("outbox", "what waits in an outbox, and how it travels without a network", _at("outbox")), config
    )
    return top


def _look(command: Callable[[str, str, Command], argparse.ArgumentParser]) -> None:
    """The commands that look at devices without a config."""
    _probe_options(command("probe", "what answers at a Modbus address, and what of it can be read", _at("probe")))

    trust = command("trust", "show the certificate of an OPC UA server, ask, and trust it", _at("trust"))
    trust.add_argument("url", metavar="URL", help="opc.tcp://host:4840")
    trust.add_argument("config", type=Path, metavar="CONFIG", nargs="?", help="whose agent is to trust it")
    trust.add_argument("--pki", type=Path, metavar="DIR", help="directory of certificates, instead of the config's")
    trust.add_argument("--yes", action="store_true", help="trust it without a question")
    trust.add_argument("--fingerprint", metavar="SHA256", help="trust it without a question, if it is this one")

    browse = command("browse", "the nodes of an OPC UA server, as a tree or as a tag list ready to use", _at("browse"))
    browse.add_argument("url", metavar="URL", help="opc.tcp://host:4840")
    browse.add_argument(
        "--config", type=Path, metavar="CONFIG", help="use its certificates, and with --device its user"
    )
    browse.add_argument("--device", metavar="NAME", help="connect as this device of the config does")
    browse.add_argument("--pki", type=Path, metavar="DIR", help="directory of certificates, instead of the config's")
    browse.add_argument("--security", metavar="WORDS", help="auto, Policy/Mode, or None")
    browse.add_argument("--user", metavar="NAME", help="its password is read from HEADRACE_PASSWORD")
    browse.add_argument("--csv", action="store_true", help="a tag list for a config, as --output NAME.csv is anyway")
    browse.add_argument("--output", type=Path, metavar="FILE", help="write to a file instead of stdout")
    browse.add_argument("--root", metavar="NODE", default="i=85", help="where to begin (default: Objects, i=85)")
    browse.add_argument("--filter", metavar="GLOB", help="only variables whose path or name fits, e.g. '*/Furnace/*'")
    browse.add_argument("--type", metavar="TYPE", action="append", help="only this type, e.g. float64; may be repeated")
    browse.add_argument("--depth", type=_count(1000), default=64, help="levels below the root (default %(default)s)")
    browse.add_argument("--all", action="store_true", help="also the server's own node, i=2253")


def _sharing(command: Callable[..., argparse.ArgumentParser], config: Callable[..., None]) -> None:
    """The commands about who reads what, and how good it is."""
    query = command("query", "readings by identifier", _at("query"))
    query.add_argument("identifier", metavar="IDENTIFIER")
    query.add_argument("--url", default="http://127.0.0.1:8080", help="the data center (default %(default)s)")
    query.add_argument("--from", dest="start", metavar="TIME", help="RFC 3339 or ns since 1970, inclusive")
    query.add_argument("--to", dest="end", metavar="TIME", help="RFC 3339 or ns since 1970, exclusive")
    query.add_argument("--limit", type=_count(1_000_000), metavar="COUNT", help="readings at most")
    query.add_argument("--format", choices=["table", "csv", "json", "parquet"], default="table")
    query.add_argument("--output", type=Path, metavar="FILE", help="write to a file instead of stdout")
    query.add_argument(
        "--aggregate", metavar="KINDS", help="count,good,min,max,mean instead of readings, with --window"
    )
    query.add_argument("--window", metavar="DURATION", help="10s, 15m, 1h, 1d")

    quality = command(
        "quality", "scores of an identifier's readings: completeness, consistency, timeliness", _at("quality")
    )
    quality.add_argument("identifier", metavar="IDENTIFIER")
    quality.add_argument("--url", default="http://127.0.0.1:8080", help="the data center (default %(default)s)")
    quality.add_argument("--from", dest="start", metavar="TIME", help="RFC 3339 or ns since 1970, inclusive")
    quality.add_argument("--to", dest="end", metavar="TIME", help="RFC 3339 or ns since 1970, exclusive")
    quality.add_argument("--window", metavar="DURATION", help="10s, 15m, 1h, 1d; left out: the whole span")
    quality.add_argument("--interval", metavar="DURATION", help="the step that is expected; left out: the median step")

    grant = command("grant", "who may read what at the data center", _at("grant"))
    grant.add_argument("action", choices=["add", "list", "revoke"])
    config(grant)
    grant.add_argument("grant", nargs="?", metavar="GRANT", help="which one to revoke")
    grant.add_argument("--who", help="who gets it: a person, a company, a program")
    grant.add_argument(
        "--pattern", action="append", default=[], help="an identifier, or the beginning of some: '88.118.8/press1.*'"
    )
    grant.add_argument("--level", type=int, choices=[1, 2, 3], default=1, help="the highest level (default 1)")
    grant.add_argument("--form", choices=["raw", "aggregate"], default="raw", help="readings, or only aggregates")
    grant.add_argument("--window", default="1m", help="of aggregates: the shortest window (default %(default)s)")
    grant.add_argument("--until", metavar="TIME", help="RFC 3339 or a date; left out: until it is revoked")
    grant.add_argument("--purpose", default="", help="what for; stands in the ledger")

    audit = command("audit", "whether a ledger is whole and unchanged", _at("audit"))
    audit.add_argument("action", choices=["verify"])
    audit.add_argument("path", type=Path, metavar="FILE|CONFIG", help="a ledger's file or folder, or a config for all")
    audit.add_argument("--anchor", action="append", default=[], metavar="NUMBER:HASH", help="a head that was kept")


def _played_options(made: argparse.ArgumentParser) -> None:
    """What decides every value of a virtual plant."""
    made.add_argument("--seed", type=int, help="another seed, another plant (default: of [simulation], or 1)")
    made.add_argument(
        "--simulation", type=Path, metavar="FILE", help="how tags move: a file with [simulation], not the config's own"
    )


def _verify_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("config", type=Path, metavar="CONFIG", help="the config that was simulated")
    _played_options(made)
    made.add_argument("--url", help="the data center (default: of [datacenter] in the config)")
    made.add_argument("--from", dest="start", metavar="TIME", help="RFC 3339 or ns since 1970, inclusive")
    made.add_argument("--to", dest="end", metavar="TIME", help="RFC 3339 or ns since 1970, exclusive")


def _simulate_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file; see `headrace init`")
    _played_options(made)
    made.add_argument("--cert", type=Path, metavar="FILE", help="what TLS devices show (default: made for them)")
    made.add_argument("--key", type=Path, metavar="FILE", help="its key")
    made.add_argument(
        "--resolver",
        nargs="?",
        const="none",
        metavar="FAULT",
        help="a resolver too, at the address of [resolver]; with a fault: slow, hang, error, wrong, expired, ...",
    )
    made.add_argument(
        "--map",
        action="append",
        default=[],
        metavar="HOST=127.0.0.1:PORT",
        help="simulate a device that is elsewhere here; may be repeated",
    )
    made.add_argument("--loopback", action="store_true", help="the same for all devices, and for the broker")
    shown = made.add_mutually_exclusive_group()
    shown.add_argument("--watch", action="store_true", help="show devices, clients, requests and faults as they are")
    shown.add_argument("--background", action="store_true", help="return when they listen, and leave them running")
    made.add_argument("--faults", type=Path, metavar="FILE", help="what goes wrong, and when (docs/faults.md)")
    made.add_argument("--load", action="store_true", help="a compiled server instead, for benchmarks (docs/scale.md)")
    made.add_argument(
        "--period", type=_duration, default=1.0, help="with --load: how often all values change (default 1s)"
    )


def _probe_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("url", metavar="URL", help="tcp://host:502, rtu:///dev/ttyUSB0?baudrate=9600, and so on")
    made.add_argument("--units", metavar="1-247", help="unit ids (default 1-247 on a serial line, else 0-8,255)")
    made.add_argument("--tables", default="co,di,hr,ir", help="tables to look at (default %(default)s)")
    made.add_argument("--addresses", default="0-999", help="addresses to look at (default %(default)s)")
    made.add_argument("--timeout", type=_above_zero, default=0.5, help="seconds for an answer (default %(default)s)")
    made.add_argument("--rate", type=_above_zero, default=50.0, help="requests a second at most (default %(default)s)")
    made.add_argument(
        "--requests", type=_count(1_000_000), default=1500, help="at most, for a table of a unit (default %(default)s)"
    )
    made.add_argument("--ca", type=Path, metavar="FILE", help="tls: PEM file of the device's CA")
    made.add_argument("--cert", type=Path, metavar="FILE", help="tls: our certificate")
    made.add_argument("--key", type=Path, metavar="FILE", help="tls: its key")
    made.add_argument("--server-name", metavar="NAME", help="tls: the name in the device's certificate")


def _identifier_options(command: Callable[[str, str, Command], argparse.ArgumentParser]) -> None:
    resolve = command("resolve", "what an identifier is, and what a resolver says of it", _at("resolve"))
    resolve.add_argument("identifier", metavar="IDENTIFIER")
    resolve.add_argument("--config", type=Path, metavar="CONFIG", help="ask the [resolver] of this config")
    resolve.add_argument("--url", help="ask this node, in the Handle form")

    labels = command("labels", "every tag with its domain, level and category, and where it may go", _at("labels"))
    labels.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file")
    labels.add_argument("--format", choices=["table", "csv", "json"], default="table")

    catalog = command("catalog", "what the data center is told of the tags", _at("catalog"))
    catalog.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file")
    catalog.add_argument("--format", choices=["json", "gbt21063"], default="json")


def _outbox_verbs(outbox: argparse.ArgumentParser, config: Callable[[argparse.ArgumentParser], None]) -> None:
    verbs = outbox.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, help: str) -> argparse.ArgumentParser:  # noqa: A002
        made = verbs.add_parser(name, help=help, description=help)
        made.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print facts as JSON")
        return made

    def of_uplink(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        config(made)
        made.add_argument("--uplink", choices=["main", "level3"], default="main", help="whose outbox (default main)")
        return made

    of_uplink(verb("status", "how much waits, since when, and what it takes on the disk"))
    of_uplink(verb("verify", "check every block, the order of the places, and the file itself"))
    export = verb("export", "write what waits and may leave, catalogs included, to a file for `import` and `decode`")
    of_uplink(export)
    export.add_argument("output", type=Path, metavar="FILE")
    export.add_argument("--confirm", action="store_true", help="then it counts as delivered (stop the agent first)")
    export.add_argument("--file", type=Path, metavar="DAMAGED", help="read an outbox that was set aside instead")
    bring = verb("import", "give an exported file to the data center, as if it had come over the network")
    bring.add_argument("file", type=Path, metavar="FILE")
    config(bring)
