"""`headrace query` and its kin against whatever may answer at an address: no token goes astray, no traceback comes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from headrace.query import NoAnswer, fetch
from tests.rig import headrace


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """An address that answers everything with these bytes, and what was asked there."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def work() -> None:
            with suppress(OSError):
                while True:
                    line, _ = listener.accept()
                    with line:
                        asked.append(line.recv(65536))
                        line.sendall(answer)

        threading.Thread(target=work, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        listener.shutdown(socket.SHUT_RDWR)


def test_a_token_follows_no_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TOKEN", "hr_secret")
    with (
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as (other, stolen),
        answering(b"HTTP/1.1 307 Moved\r\nLocation: %s/v1\r\nContent-Length: 0\r\n\r\n" % other.encode()) as (
            url,
            asked,
        ),
        pytest.raises(NoAnswer, match="write --url") as refused,
    ):
        fetch(url, "/v1/readings", id="x")
    assert (refused.value.status, other in str(refused.value)) == (307, True)
    assert b"hr_secret" in asked[0]
    assert stolen == []


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", b"SSH-2.0-OpenSSH_9.6\r\n", b""]
)
def test_an_answer_that_is_broken_off_is_said_so(answer: bytes) -> None:
    with answering(answer) as (url, _), pytest.raises(NoAnswer, match=r"broke its answer off|no answer from"):
        fetch(url, "/v1/readings", id="x")


def test_wrong_calls_say_what_to_write(tmp_path: Path) -> None:
    resolved = headrace("resolve", "88.1/x", "--url", "foo")
    assert (resolved.returncode, "http://host:8000" in resolved.stderr, "Traceback" in resolved.stderr) == (
        2,
        True,
        False,
    )
    config = tmp_path / "plant.toml"
    config.write_text('[uplink]\nurl = "mqtt://127.0.0.1:9"\n[datacenter]\nstore = "./store"\nhttp = "127.0.0.1:0"\n')
    granted = headrace("grant", "add", str(config), "--who", "x", "--pattern", "")
    assert (granted.returncode, "--pattern '88.118.8" in granted.stderr) == (2, True)
    (tmp_path / "store" / "grants.db").mkdir(parents=True)
    started = headrace("datacenter", str(config))
    assert (started.returncode, "grants.db can't be used" in started.stderr, "Traceback" in started.stderr) == (
        1,
        True,
        False,
    ), started.stderr
