"""Connections to the HTTP interface that ask nothing, or take no answer: they must not keep the others out."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from datacenter import connection, overview
from datacenter.run import serve
from datacenter.store import Snapshot
from tests.datacenter_rig import BEGIN, REAL, TAGS, Rig, block, catalog, until

pytestmark = pytest.mark.timeout(180)  # programs start, and the machine may be busy


@contextlib.asynccontextmanager
async def served(store: Path) -> AsyncIterator[str]:
    """A data center without a broker."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(
            store=store,
            broker="mqtt://127.0.0.1:9",
            http="127.0.0.1:0",
            root="headrace/v1",
            ca=None,
            mqtt="auto",
            stop=stop,
            ready=ready.set_result,
        )
    )
    try:
        facts: dict[str, Any] = await ready
        yield facts["http"]
    finally:
        stop.set()
        await task


def dial(place: str, receive: int = 0) -> socket.socket:
    host, _, port = place.rpartition(":")
    made = socket.socket()
    if receive:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    made.connect((host, int(port)))
    made.setblocking(False)
    return made


async def test_silent_connections_keep_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "ASKED_WITHIN", 1.0)
    monkeypatch.setattr(connection, "LOOK", 0.1)
    async with served(tmp_path) as place, httpx.AsyncClient(timeout=30.0) as http:
        with contextlib.ExitStack() as open_:
            silent = [open_.enter_context(dial(place)) for _ in range(40)]
            drips = [open_.enter_context(dial(place)) for _ in range(40)]
            for _ in range(200):
                for each in drips:
                    with contextlib.suppress(OSError):
                        each.send(b"G")
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.get(f"http://{place}/v1/streams")
                    if answer.status_code == 200:
                        break
                await asyncio.sleep(0.05)
            assert answer.json() == []
            # Who asks again and again on one connection is not silent.
            for _ in range(30):
                assert (await http.get(f"http://{place}/v1/streams")).status_code == 200
                await asyncio.sleep(0.05)
            left = silent
            while left := [each for each in left if not gone(each)]:  # noqa: ASYNC110 - of the server's doing
                await asyncio.sleep(0.05)


def gone(line: socket.socket) -> bool:
    try:
        return line.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_an_answer_that_nobody_takes_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TAKEN_WITHIN", 2.5)
    monkeypatch.setattr(connection, "LOOK", 0.1)
    many = 400_000
    with Rig(tmp_path) as rig:
        rig.send(catalog(), word="catalog")
        rig.send(block(uuid4(), 1, [(REAL, BEGIN + at, at / 7, 0) for at in range(many)]))
    loop = asyncio.get_running_loop()
    asked = f"GET /v1/readings?id={TAGS[REAL].identifier}&limit={many} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    async with served(tmp_path) as place:
        with dial(place, 4096) as stuck, dial(place) as slow:
            for each in (stuck, slow):
                await loop.sock_sendall(each, asked)
            taken, pause = 0, 3.0
            while part := await loop.sock_recv(slow, 1 << 20):
                taken += len(part)
                if part.endswith(b"]}"):
                    break
                # Slow, but it takes some within that time, again and again.
                if pause > 0:
                    await asyncio.sleep(0.5)
                    pause -= 0.5
            assert taken > many * 20
            left = 0
            with contextlib.suppress(OSError):
                while part := await loop.sock_recv(stuck, 1 << 20):
                    left += len(part)
            assert left < taken


async def test_a_question_of_whom_nobody_waits_for_any_more_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there are threads ask for what takes minutes, and close the connection: the next one is answered."""
    began: list[Snapshot] = []

    def slow(view: Snapshot) -> list[Any]:
        began.append(view)
        return view.rows("SELECT sum(sqrt(i)) FROM range(1000000000000) t(i)")

    monkeypatch.setattr(overview, "agents", slow)
    async with served(tmp_path) as place, httpx.AsyncClient(timeout=40.0) as http:
        asked = b"GET /v1/agents HTTP/1.1\r\nHost: x\r\n\r\n"
        lines = [dial(place) for _ in range(6)]
        for line in lines:
            await asyncio.get_running_loop().sock_sendall(line, asked)
        await asyncio.to_thread(until, lambda: len(began) == 4)
        for line in lines:
            line.close()
        assert (await http.get(f"http://{place}/v1/streams")).json() == []
