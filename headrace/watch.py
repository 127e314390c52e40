"""`headrace simulate --watch`: the virtual devices in the terminal, who reads them, and what is wrong with them."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulators.run import Simulation

MOST = 40
"""Devices that are shown; the last line sums up the others."""


WIDE = 100
"""Columns of a terminal that has room for where devices are."""


class Watch:
    """Rates are over the time since the last look."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._seen: dict[str, int] = {}
        self._since = time.monotonic()

    def render(self, width: int) -> RenderableType:
        """For a terminal with so many columns."""
        now = time.monotonic()
        passed, self._since = max(0.05, now - self._since), now
        wide = width >= WIDE
        table = Table(title="virtual devices", title_justify="left", box=None, pad_edge=False)
        table.add_column("device", no_wrap=True, max_width=24 if wide else max(12, width - 34))
        if wide:
            table.add_column("at", no_wrap=True, max_width=width - 72)
        for name in ("clients", "per second", "exceptions") if wide else ("clients", "/s"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("wrong now")
        devices = self._simulation.devices()
        for each in devices[:MOST]:
            rate = (each.work - self._seen.get(each.name, each.work)) / passed
            clients = Text(str(each.clients), style="" if each.clients else "dim")
            wrong = Text(", ".join(each.faults) or "-", style="red" if each.faults else "")
            left = [Text(each.name), Text(each.place)] if wide else [Text(each.name)]
            more = [f"{each.exceptions:,}"] if wide else []
            table.add_row(*left, clients, f"{rate:,.1f}" if wide else f"{rate:,.0f}", *more, wrong)
        self._seen = {each.name: each.work for each in devices}
        return Group(table, self._whole(len(devices)))

    def _whole(self, devices: int) -> Text:
        facts = self._simulation.facts()
        words = [f"and {devices - MOST} more"] if devices > MOST else []
        words += [f"{facts[name]:,} {name}" for name in ("clients", "requests", "changes", "exceptions")]
        return Text(f"all: {', '.join(words)}", style="bold")
