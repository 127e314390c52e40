"""The commands that run until they are told to stop: agent, simulated devices, data center."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import gc
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import allocator
from agent import config as configs
from agent.errors import ConfigError, Problem
from agent.wording import halves
from headrace import background

if TYPE_CHECKING:
    from agent.health import Facts
    from agent.status import Status
    from simulators.plant import Plant
    from simulators.run import Simulation

log = logging.getLogger("headrace")

EVERY = 1.0
"""Seconds between the status lines of `--json`."""


def until_stopped(work: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Runs `work` with an event that the first SIGINT or SIGTERM sets; a second one ends the process at once."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def asked() -> None:
            if stop.is_set():
                raise SystemExit(1)
            stop.set()

        for each in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(each, asked)
        await work(stop)

    try:
        asyncio.run(main())
    except BaseExceptionGroup as many:
        # A TaskGroup wraps what ended it; one reason is one error.
        single: BaseException = many
        while isinstance(single, BaseExceptionGroup) and len(single.exceptions) == 1:
            single = single.exceptions[0]
        raise single from None


def show(facts: dict[str, Any]) -> None:
    """One JSON object, one line, at once."""
    print(json.dumps(facts, default=str), flush=True)


def _warn(checked: configs.Checked) -> configs.Config:
    """The config, with its warnings logged. Raises ConfigError."""
    if checked.config is None:
        raise ConfigError(checked.problems)
    for warning in checked.warnings:
        place = f"{warning.file}:{warning.line}" if warning.line else warning.file
        text = "%s: %s: %s; %s"
        facts = {"event": "config_warning"}
        logging.getLogger("headrace").warning(text, place, warning.field, warning.message, warning.hint, extra=facts)
    return checked.config


def agent(options: argparse.Namespace) -> int:
    """`headrace run`: with `--json`, a status line a second, and a last one that says how it ended."""
    allocator.share_one_pool()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be heard: the config is only now being read
    faulthandler.enable()  # where a disk goes away the kernel may end us by SIGBUS: stderr then says where
    config = _warn(configs.check(options.config))
    if not config.devices:
        raise ConfigError(
            [Problem(str(config.path), "device", "there is no [[device]]", "write at least one [[device]]")]
        )
    from agent import health
    from agent.pipeline import Pipeline

    pipeline = Pipeline(config)
    face = _face(config.status.http, pipeline.facts, config.seal.after) if config.status else None

    async def work(stop: asyncio.Event) -> None:
        started, hung_up = asyncio.Event(), asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up.set)

        def ready() -> None:
            started.set()
            if face is not None:
                face.ready = True

        async def beside() -> None:
            await started.wait()
            await asyncio.gather(
                health.notify(pipeline.facts, config.seal.after),
                _reload(hung_up, options, pipeline.reload),
                *([_report(pipeline.facts)] if options.json else []),
            )

        async with asyncio.TaskGroup() as group:
            if face is not None:
                face.open()
            telling = group.create_task(beside())
            try:
                await pipeline.run(stop, drain=options.drain, ready=ready)
            finally:
                telling.cancel()
                if face is not None:
                    await asyncio.to_thread(face.close)
        if options.json:
            show({"stopped": True, **pipeline.facts()})

    until_stopped(work)
    return 0


def _face(http: str, facts: Facts, seal_after: float) -> Status:
    """Only a config with [status] loads what it takes: 5 MB."""
    from agent.status import Status

    return Status(http, facts, seal_after)


async def _reload(
    asked: asyncio.Event, options: argparse.Namespace, take: Callable[[configs.Config], list[str]]
) -> None:
    """At each SIGHUP reads the config again. What can't be used, or needs a restart, is said and changes nothing."""
    while True:
        await asked.wait()
        asked.clear()
        checked = await asyncio.to_thread(configs.check, options.config)
        if checked.config is None:
            for problem in checked.problems:
                log.error("the changed config is not taken: %s", problem, extra={"event": "config_refused", "lost": 0})
        elif wrong := take(checked.config):
            facts = {"event": "config_refused", "lost": 0, "needs_restart": wrong}
            log.error("the changed config is not taken: %s needs a restart", ", ".join(wrong), extra=facts)
        else:
            log.info("the changed config is taken", extra={"event": "config_reloaded"})


async def _report(facts: Callable[[], dict[str, Any]]) -> None:
    while True:
        show(facts())
        await asyncio.sleep(EVERY)


def simulate(options: argparse.Namespace) -> int:
    """`headrace simulate`. What TLS devices are to be trusted by is made where it is missing, so before the check."""
    from simulators import certificate
    from simulators.faults import load
    from simulators.resolving import resolving
    from simulators.run import simulate as run

    if options.background:
        log_file = options.config.with_name(f"{options.config.stem}.simulate.log")
        return background.run(sys.argv[1:], log_file, show if options.json else _listening)
    adapted = _adapted(options)
    if adapted is not None:
        options.config = adapted
    for made in certificate.for_config(options.config):
        text, facts = "Made %s, which virtual TLS devices show.", {"event": "tls_certificate_made", "path": str(made)}
        logging.getLogger("headrace.simulators").info(text, made, extra=facts)
    if bool(options.cert) != bool(options.key):
        raise ConfigError(
            [Problem("headrace simulate", "arguments", "--cert and --key go together", "write both, or neither")]
        )
    shown = (options.cert, options.key) if options.cert else None
    for missing in (each for each in shown or () if not each.is_file()):
        raise ConfigError(
            [Problem("headrace simulate", "arguments", f"there is no file {missing}", "write one in PEM")]
        )
    config = _warn(configs.check(options.config))
    plant = play(config, options)
    if options.load:
        from headrace import load as loads

        return loads.main(config, plant, options, adapted)
    faults = load(options.faults, config) if options.faults else None

    # Of the nodes of fifty servers nothing is garbage: to look for some takes longer than to make them.
    gc.disable()

    def ready() -> None:
        gc.freeze()
        gc.enable()
        announce(config, options, adapted)

    async def work(stop: asyncio.Event) -> None:
        watch = _watch if options.watch else None
        async with resolving(config, options.resolver):
            await run(
                config,
                seed=plant.seed,
                stop=stop,
                ready=ready,
                shown=shown,
                plant=plant,
                faults=faults,
                watch=watch,
            )

    until_stopped(work)
    return 0


def announce(
    config: configs.Config, options: argparse.Namespace, adapted: Path | None, more: dict[str, Any] | None = None
) -> None:
    """Says which virtual devices are there now, and where the config is that was adapted to them."""
    devices = [{"name": device.name, "url": device.url, "tags": len(device.tags)} for device in config.devices]
    facts = {"ready": True, "devices": devices, **({"config": str(adapted)} if adapted else {}), **(more or {})}
    (show if options.json else _listening)(facts)


def _listening(facts: dict[str, Any]) -> None:
    for device in facts["devices"]:
        print(f"{device['name']:<20} {device['url']:<36} {device['tags']} tags", flush=True)
    if "config" in facts:
        print(f"headrace run {facts['config']}   reads these devices", flush=True)
    log = f"; it logs to {facts['log']}" if "log" in facts else "."
    print(f"{facts.get('stop', 'Ctrl-C')} stops it{log}", file=sys.stderr)


async def _watch(simulation: Simulation) -> None:
    from rich.console import Console
    from rich.live import Live

    from headrace.watch import Watch

    console, watch = Console(), Watch(simulation)
    if not console.is_terminal:
        facts = {"event": "nothing_to_watch"}
        log.warning("--watch shows nothing: stdout is no terminal", extra=facts)
        return
    with Live(console=console, get_renderable=lambda: watch.render(console.width), refresh_per_second=2):
        await asyncio.Event().wait()


def play(config: configs.Config, options: argparse.Namespace) -> Plant:
    """The virtual plant that the options `--seed` and `--simulation` ask for. Raises ConfigError."""
    from simulators.plant import Plant

    return Plant.of(config, options.seed, options.simulation)


def _adapted(options: argparse.Namespace) -> Path | None:
    """The copy of the config whose devices are here, where one is asked for. Raises ConfigError."""
    if not (options.map or options.loopback):
        return None
    from simulators import mapping

    try:
        given = dict(mapping.parse(each) for each in options.map)
    except ValueError as wrong:
        message, hint = halves(str(wrong))
        raise ConfigError([Problem("headrace simulate", "--map", message, hint)]) from None
    return mapping.adapt(options.config, given, everything=options.loopback)


def datacenter(options: argparse.Namespace) -> int:
    """`headrace datacenter`."""
    config = _warn(configs.check(options.config))
    if config.datacenter is None:
        raise ConfigError(
            [Problem(str(config.path), "datacenter", "there is no [datacenter]", "write [datacenter] with a store")]
        )
    section, uplink = config.datacenter, config.uplink
    from datacenter.run import serve

    def ready(facts: dict[str, Any]) -> None:
        if options.json:
            show({"ready": True, **facts})

    with contextlib.suppress(asyncio.CancelledError):
        until_stopped(
            lambda stop: serve(
                store=section.store,
                broker=uplink.url,
                http=section.http,
                root=uplink.root,
                ca=str(uplink.ca) if uplink.ca else None,
                mqtt=uplink.mqtt,
                backup=uplink.backup,
                cert=str(uplink.cert) if uplink.cert else None,
                key=str(uplink.key) if uplink.key else None,
                stop=stop,
                ready=ready,
                access=section.access,
                keep_days=config.audit.keep / 86400,
                audit_bytes=config.audit.max_bytes,
            )
        )
    log.info("the data center is stopped", extra={"event": "stopped"})
    return 0
