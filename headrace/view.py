"""The demo's live view."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class View:
    """What is shown; the demo fills it in, `render` draws it."""

    seconds: float
    broker: str
    stage: str = "starting"
    broker_up: bool = True
    agent: dict[str, Any] = field(default_factory=dict)
    center: dict[str, Any] = field(default_factory=dict)
    rates: deque[int] = field(default_factory=lambda: deque(maxlen=40))
    _began: float = 0.0
    _last: tuple[float, int] = (0.0, 0)

    def begin(self) -> None:
        """The collecting starts now."""
        self._began = time.monotonic()

    def sample(self) -> None:
        """Notes the rate of arrival since the last call."""
        now, stored = time.monotonic(), self.center.get("readings", 0)
        then, before = self._last
        if then:
            self.rates.append(round((stored - before) / (now - then)))
        self._last = (now, stored)

    def render(self) -> RenderableType:
        agent, center = self.agent, self.center
        outbox, uplink = agent.get("outbox", {}), agent.get("uplink", {})
        stored = center.get("readings", 0)
        size = f"{center.get('bytes', 0) / stored:.2f} bytes" if stored else "-"
        lag = center.get("latency_ms_p50")
        facts = Table.grid(padding=(0, 2))
        rows = [
            ("collected", f"{agent.get('accepted', 0) - agent.get('filtered', 0):,} readings"),
            ("stored", f"{stored:,} readings"),
            ("a reading takes", size),
            ("device to store", f"{lag:.0f} ms median" if lag is not None else "-"),
            ("waiting in outbox", f"{outbox.get('entries', 0)} blocks, {outbox.get('readings', 0):,} readings"),
        ]
        for name, value in rows:
            facts.add_row(Text(name, style="dim"), value)
        devices = Table.grid(padding=(0, 2))
        for name, state in agent.get("devices", {}).items():
            fine = state.get("connected")
            devices.add_row(Text("●", style="green" if fine else "red"), name, state.get("reason", ""))
        linked = self.broker_up and uplink.get("connected")
        devices.add_row(Text("●", style="green" if linked else "red"), self.broker, "" if linked else "away")
        elapsed = min(self.seconds, time.monotonic() - self._began) if self._began else 0.0
        both = Table.grid(padding=(0, 6))
        both.add_row(facts, devices)
        bar = ProgressBar(total=self.seconds, completed=elapsed, width=60)
        return Panel(Group(both, Text(""), self._spark(), bar), title=f"headrace demo: {self.stage}", width=92)

    def _spark(self) -> Text:
        top = max(self.rates, default=0) or 1
        bars = "".join(BARS[min(7, max(0, rate) * 7 // top)] for rate in self.rates)
        now = self.rates[-1] if self.rates else 0
        return Text(f"{bars:<40} {now:,} readings/s", style="cyan")
