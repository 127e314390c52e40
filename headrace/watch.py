"""`headrace simulate --watch`: the virtual devices in the terminal, who reads them, and what is wrong with them."""

from __future__ import annotations

import time

from rich.console import RenderableType
from rich.table import Table

from simulators.run import Simulation

MOST = 40
"""Devices that are shown; the last line sums up the others."""


class Watch:
    """Rates are over the time since the last look."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._seen: dict[str, int] = {}
        self._since = time.monotonic()

    def render(self) -> RenderableType:
        now = time.monotonic()
        passed, self._since = max(0.05, now - self._since), now
        table = Table(title="virtual devices", title_justify="left", box=None, pad_edge=False)
        table.add_column("device")
        table.add_column("at")
        for name in ("clients", "per second", "exceptions"):
            table.add_column(name, justify="right")
        table.add_column("wrong now")
        devices = self._simulation.devices()
        for each in devices[:MOST]:
            rate = (each.work - self._seen.get(each.name, each.work)) / passed
            wrong = f"[red]{', '.join(each.faults)}[/red]" if each.faults else "-"
            clients = str(each.clients) if each.clients else "[dim]0[/dim]"
            table.add_row(each.name, each.place, clients, f"{rate:,.1f}", f"{each.exceptions:,}", wrong)
        self._seen = {each.name: each.work for each in devices}
        facts = self._simulation.facts()
        hidden = f"and {len(devices) - MOST} more" if len(devices) > MOST else ""
        whole = f"{facts['requests']:,} requests, {facts['changes']:,} changes"
        table.add_row("[bold]all[/bold]", hidden, str(facts["clients"]), whole, f"{facts['exceptions']:,}", "")
        return table
