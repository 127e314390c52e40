"""Runs servers for every device of a config, at the config's own addresses."""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from agent.config import Config, ModbusDevice, OpcUaDevice
from agent.document import line_of
from agent.errors import ConfigError, HeadraceError, Problem
from agent.model import Tag
from simulators import certificate
from simulators.faults import Faults, FaultTable, Maker, Schedule
from simulators.lines import Lines
from simulators.loopback import loopback
from simulators.modbus_image import Image
from simulators.modbus_place import Place
from simulators.modbus_pty import PtyServer
from simulators.modbus_server import ModbusServer, Server
from simulators.mood import Act, Ill, Mood, Record, Wrong
from simulators.opcua_access import Access
from simulators.opcua_server import OpcUaServer
from simulators.plant import Plant
from simulators.profiles import profile

log = logging.getLogger("headrace.simulators")


class PortTaken(HeadraceError):
    """A device's address can't be listened at; the message says which and what to do."""


class DeviceFacts(NamedTuple):
    """Of one device. Devices behind one address share clients and counters."""

    name: str
    place: str
    """Where its clients find it: its url."""
    clients: int
    """Connected now."""
    work: int
    """Requests of a Modbus server, changes of an OPC UA server, since the start."""
    exceptions: int
    faults: tuple[Wrong, ...]


class Simulation:
    """The servers of one config. `start`, then `run`, then `stop`. Raises ConfigError for what can't be simulated."""

    def __init__(
        self,
        config: Config,
        seed: int,
        clock: Callable[[], int] = time.time_ns,
        *,
        shown: tuple[Path, Path] | None = None,
        plant: Plant | None = None,
        faults: Faults | None = None,
    ) -> None:
        """`shown`: certificate and key of all TLS devices. Left out, one is made where there is none. `plant`: left
        out, that of the config with this seed."""
        self.plant = plant or Plant.of(config, seed)
        self._path = config.path
        self._shown = shown
        self._faulty = faults.on("line") if faults else set()
        self._lines = Lines(faults.seed if faults else 0)
        self._usual = config.agent.data_dir / "simulator" / "simulator.pem"
        self.record = Record.beside(config.agent.data_dir, clock)
        self._urls = {device.name: device.url for device in config.devices}
        self._homes: dict[str, tuple[Server, int] | OpcUaServer] = {}
        self._moods: dict[str, Mood] = {}
        self._modbus: list[tuple[str, Server]] = []
        self._opcua: list[tuple[str, OpcUaServer]] = []
        lines: dict[Place, dict[int, list[ModbusDevice]]] = {}
        endpoints: dict[tuple[str, int], list[OpcUaDevice]] = {}
        redundant: dict[tuple[str, int], list[tuple[str, OpcUaDevice]]] = {}
        for device, place in _places(config):
            if isinstance(device, OpcUaDevice):
                endpoints.setdefault((place.host, place.port), []).append(device)
                for url in device.backup:
                    other = _opcua_place(url)
                    redundant.setdefault((other.host, other.port), []).append((url, device))
            else:
                lines.setdefault(place, {}).setdefault(device.unit, []).append(device)
        for place, by_unit in lines.items():
            trusts = [device.ca for devices in by_unit.values() for device in devices if device.ca is not None]
            images = {unit: Image(self.plant, _names(devices), _tags(devices)) for unit, devices in by_unit.items()}
            names = _names([device for devices in by_unit.values() for device in devices])
            server = place.server(images, clock, partial(self._context, trusts))
            server.units.limits = profile(self.plant.told, names.split(", "))
            self._modbus.append((names, server))
            self._homes |= {each.name: (server, unit) for unit, devices in by_unit.items() for each in devices}
        for devices in endpoints.values():
            opcua = self._opcua_server(devices[0].url, devices, clock)
            self._opcua.append((_names(devices), opcua))
            self._homes |= {each.name: opcua for each in devices}
        for end, others in redundant.items():
            # What is wrong with a device is wrong with its own server: for that there are the others.
            if end not in endpoints:
                names = ", ".join(f"{each.name} (backup)" for _, each in others)
                self._opcua.append((names, self._opcua_server(others[0][0], [each for _, each in others], clock)))
        makers: dict[str, Maker] = {"line": self._lines.make, "device": self._make}
        self._schedule = Schedule(faults, makers) if faults else None

    def mood(self, device: str) -> Mood:
        """What is wrong with a device, for who wants something to be. Raises KeyError."""
        if (found := self._moods.get(device)) is None:
            found = self._moods[device] = Mood(device)
            home = self._homes[device]
            if isinstance(home, OpcUaServer):
                home.moods[device] = found
            else:
                server, unit = home
                server.units.moods[unit] = (*server.units.moods.get(unit, ()), found)
        return found

    def _make(self, device: str, table: FaultTable) -> Act:
        return self.act(device, table.ill(table.kind))

    def act(self, device: str, ill: Ill) -> Act:
        """A fault of a device that can begin and end, and is on record for `headrace verify`."""
        return Act(self.mood(device), ill, self.record)

    def _opcua_server(self, url: str, devices: list[OpcUaDevice], clock: Callable[[], int]) -> OpcUaServer:
        try:
            access = Access.of(devices, self._usual.with_name("opcua.der"))
            access.trusted_by(devices)
        except (OSError, ValueError) as reason:
            hint = "write a user_certificate that can be read, and a data_dir that can be written"
            raise ConfigError([Problem(str(self._path), "device", f"{_names(devices)}: {reason}", hint)]) from reason
        limits = profile(self.plant.told, (device.name for device in devices))
        folders = [(device.name, device.tags) for device in devices]

        def still(from_ns: int, to_ns: int) -> None:
            for device in devices:
                self.record.was(device.name, Wrong.FROZEN, from_ns, to_ns)

        return OpcUaServer(url, folders, self.plant, clock, access=access, limits=limits, still=still)

    def _context(self, trusts: list[Path]) -> ssl.SSLContext:
        """What TLS devices show: what they were given, what their config trusts if its key is there, or one made."""
        own = next((each for each in trusts if each.with_suffix(".key").exists()), self._usual)
        certificate_path, key = self._shown or certificate.make(own)
        facts = {"event": "tls_certificate", "path": str(certificate_path)}
        log.info("TLS devices show %s; a client takes it as its CA.", certificate_path, extra=facts)
        return certificate.context(certificate_path, key)

    @property
    def _servers(self) -> list[tuple[str, Server | OpcUaServer]]:
        return [*self._modbus, *self._opcua]

    async def start(self) -> None:
        """Listens for every device; nothing is left listening where one can't. Raises PortTaken."""
        self.record.started()
        for names, server in self._servers:
            try:
                if self._faulty.isdisjoint(names.split(", ")) or not isinstance(server, ModbusServer | OpcUaServer):
                    await server.start()
                else:
                    await self._lines.open(names.split(", "), server)
            except OSError as reason:
                await self.stop()
                raise PortTaken(_reason(names, server, reason)) from reason
            except BaseException:
                await self.stop()
                raise

    async def run(self) -> None:
        """Moves the plant on, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for names, server in self._opcua:
                tasks.create_task(server.run(), name=f"simulate {names}")
            if self._schedule is not None:
                tasks.create_task(self._schedule.run(), name="faults")
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """Cuts every client and frees every port, within a second or so; also after half a start."""
        await self._lines.close()
        await asyncio.gather(*(server.stop() for _, server in self._servers))

    def devices(self) -> list[DeviceFacts]:
        """Every device with the counters of the server that it is behind, and what is wrong with it now."""
        found = []
        for name, home in self._homes.items():
            kinds = self._moods[name].kinds if name in self._moods else ()
            if isinstance(home, OpcUaServer):
                found.append(DeviceFacts(name, self._urls[name], home.clients, home.changes, 0, kinds))
            else:
                served = home[0].served
                clients, exceptions = served.clients, served.exceptions
                found.append(DeviceFacts(name, self._urls[name], clients, served.requests, exceptions, kinds))
        return found

    def facts(self) -> dict[str, int]:
        """Counters since the start; `clients` is how many are connected now."""
        modbus = [server.served for _, server in self._modbus]
        return {
            "requests": sum(served.requests for served in modbus),
            "exceptions": sum(served.exceptions for served in modbus),
            "changes": sum(server.changes for _, server in self._opcua),
            "clients": sum(served.clients for served in modbus) + sum(server.clients for _, server in self._opcua),
            **(self._schedule.facts() if self._schedule is not None else {}),
        }


async def simulate(
    config: Config,
    *,
    seed: int,
    stop: asyncio.Event,
    ready: Callable[[], None],
    shown: tuple[Path, Path] | None = None,
    plant: Plant | None = None,
    faults: Faults | None = None,
    watch: Callable[[Simulation], Awaitable[None]] | None = None,
) -> None:
    """Runs the devices of `config` until `stop` is set; calls `ready` once all of them listen, and has `watch` look on.

    Raises ConfigError for a device that is not on this machine, PortTaken where an address is in use.
    """
    simulation = Simulation(config, seed, shown=shown, plant=plant, faults=faults)
    stopping = asyncio.create_task(stop.wait())
    work = asyncio.create_task(_work(simulation, ready, watch))
    try:
        await asyncio.wait((stopping, work), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
    finally:
        facts = simulation.facts()
        for task in (stopping, work):
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
        await simulation.stop()
        log.info("The simulated devices are gone.", extra={"event": "simulation_stopped", **facts})


async def _work(
    simulation: Simulation, ready: Callable[[], None], watch: Callable[[Simulation], Awaitable[None]] | None
) -> None:
    await simulation.start()
    log.info("All simulated devices are listening.", extra={"event": "simulation_ready"})
    ready()
    await asyncio.gather(simulation.run(), *([watch(simulation)] if watch else []))


def _places(config: Config) -> list[tuple[ModbusDevice | OpcUaDevice, Place]]:
    """Where every device listens. Raises ConfigError that names all devices which can't be simulated here."""
    places: list[tuple[ModbusDevice | OpcUaDevice, Place]] = []
    problems: list[Problem] = []
    for index, device in enumerate(config.devices):
        try:
            if device.protocol == "opcua":
                found = [_opcua_place(each) for each in (device.url, *device.backup)]
                places.append((device, found[0]))
            else:
                places.append((device, Place.of(device.url)))
        except ValueError as wrong:
            parts = urlsplit(device.url)
            usual = 4840 if device.protocol == "opcua" else 502
            hint = (
                f"simulate a copy of the config with {parts.scheme}://127.0.0.1:{parts.port or usual}, which --loopback"
                " makes for all devices, or --map for one"
            )
            field = f"device[{index}].url"
            line = line_of(config.path, field)
            problems.append(Problem(str(config.path), field, f"{device.name}: {wrong}", hint, line))
    if problems:
        raise ConfigError(problems)
    return places


def _opcua_place(url: str) -> Place:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not loopback(host):
        raise ValueError(f"{host or 'an empty host'} is not this machine, and simulated devices stay on it")
    return Place(parts.scheme, host, parts.port or 4840)


def _names(devices: list[ModbusDevice] | list[OpcUaDevice]) -> str:
    return ", ".join(device.name for device in devices)


def _tags(devices: list[ModbusDevice]) -> list[Tag]:
    return [tag for device in devices for tag in device.tags]


def _reason(names: str, server: Server | OpcUaServer, reason: OSError) -> str:
    place = server.place if isinstance(server, Server) else f"port {server.port} of {server.host}"
    if reason.errno != errno.EADDRINUSE:
        return f"{names}: can't listen at {place}: {reason.strerror or reason}"
    if isinstance(server, PtyServer):
        return f"{names}: {place} exists already, and may be a real port; give the device a path that is free"
    return f"{names}: {place} is taken by another program; stop it, or give the device another port"
