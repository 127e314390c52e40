"""Puts a proxy before each server that is to have a faulty line: clients find the server where they always did."""

from __future__ import annotations

from typing import Protocol

from simulators.faults import FaultTable, Line, OnLine, seeds
from simulators.proxy import Proxy


class Moved(Protocol):
    """A server that can listen elsewhere than its clients are told."""

    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    async def listen_behind(self) -> tuple[str, int]:
        """Starts at a free port, and returns where. Raises OSError."""


class Lines:
    """The proxies of a simulation, by the names of the devices behind them: `open`, `make`, `close`."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lines: dict[str, Line] = {}

    async def open(self, names: list[str], server: Moved) -> None:
        """Starts the server, and a proxy at its address. Raises OSError where the address is taken."""
        proxy = Proxy(server.host, server.port, (server.host, 0), seed=seeds(self._seed, names[0]))
        await proxy.open()
        self._lines |= dict.fromkeys(names, Line(proxy))
        proxy.target = await server.listen_behind()

    def make(self, name: str, table: FaultTable) -> OnLine:
        """The act of one fault of one device (`simulators.faults.Maker`)."""
        return OnLine(self._lines[name], table)

    async def close(self) -> None:
        """Cuts every connection and frees every port."""
        for line in set(self._lines.values()):
            await line.proxy.close()
