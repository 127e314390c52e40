"""Devices by name, and a name server that does not answer."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

from agent.collectors import collectors
from agent.collectors.base import DeviceState, supervise
from agent.intake import Intake
from agent.model import Tag
from tests.bus import device, tags


async def test_names_that_are_looked_up_in_vain_keep_no_thread_from_the_sealer(monkeypatch: pytest.MonkeyPatch) -> None:
    known, answer = socket.getaddrinfo, threading.Event()

    def lookup(host: Any, *others: Any, **named: Any) -> Any:
        if str(host).endswith(".plant"):
            answer.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known(host, *others, **named)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    every: list[Tag] = []
    devices = []
    for number in range(50):
        mine = tags(f"d{number}", len(every), [1])
        every += mine
        scheme = ("tcp", "udp", "rtu+tcp")[number % 3]
        devices.append(device(1, mine, f"{scheme}://plc{number}.plant:502", timeout="3s"))
    inlet = Intake(every, 1 << 20)
    made = collectors(devices, inlet)
    tasks = [asyncio.create_task(supervise(each, inlet, DeviceState(each.device.name))) for each in made]
    try:
        await asyncio.sleep(0)
        begun = time.monotonic()
        for _ in range(20):
            await asyncio.to_thread(int)
            await asyncio.sleep(0.01)
        assert time.monotonic() - begun < 15
    finally:
        answer.set()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
