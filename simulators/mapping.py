"""A copy of a config whose devices are on this machine: for devices elsewhere that are to be simulated here.

The file is edited as text, so comments, order and everything that was not moved stay as they were.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn, TypeAlias
from urllib.parse import urlsplit

from agent.errors import ConfigError, Problem
from agent.places import Places
from simulators import ports
from simulators.loopback import loopback

_PORTS = {"opc.tcp": 4840, "tls": 802, "mqtt": 1883, "mqtts": 8883}
"""Where a scheme usually listens; every other is Modbus at 502."""
_SERIAL = ("rtu", "ascii")
_UNPRIVILEGED = 1024

_Way: TypeAlias = tuple[str | int, ...]


class Moves:
    """Which place stands for which. `given` is what the user wrote (host, host:port or serial path -> its place here);
    with `everything`, what was not given finds a place by itself."""

    def __init__(self, given: Mapping[str, str], ports_home: Path, *, everything: bool) -> None:
        self._given = dict(given)
        self._everything = everything
        self._home = ports_home
        self._found: dict[str, str] = {}
        self._taken: set[int] = set()
        self.used: set[str] = set()

    def url(self, url: str) -> str:
        """The url of the same device on this machine; the same as before where nothing moves it."""
        parts = urlsplit(url)
        if parts.scheme in _SERIAL:
            moved = self._serial(parts.path)
            return url.replace(parts.path, moved, 1)
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 502)
        for key in (f"{host}:{port}", host):
            if key in self._given:
                self.used.add(key)
                return parts._replace(netloc=self._given[key]).geturl()
        if loopback(host) or not self._everything:
            return url
        if (place := self._found.get(f"{host}:{port}")) is None:
            place = self._found[f"{host}:{port}"] = self._free(port)
        return parts._replace(netloc=place).geturl()

    def _serial(self, path: str) -> str:
        if path in self._given:
            self.used.add(path)
            return self._given[path]
        return str(self._home / Path(path).name) if self._everything else path

    def _free(self, port: int) -> str:
        """The port that it has, where an ordinary user may have it and no device before it took it; else a free one."""
        if port < _UNPRIVILEGED or port in self._taken or not ports.is_free(port):
            [port] = ports.free(1, self._taken)
        self._taken.add(port)
        return f"127.0.0.1:{port}"


def parse(text: str) -> tuple[str, str]:
    """`HOST[:PORT]=127.0.0.1:PORT`, or `/dev/ttyUSB0=/tmp/ttyA` for a serial port. Raises ValueError."""
    wanted = "write --map HOST=127.0.0.1:PORT, or --map /dev/ttyUSB0=/tmp/ttyA"
    source, equals, target = text.partition("=")
    if not source or not equals or not target:
        raise ValueError(f"{text!r} is not a mapping; {wanted}")
    if source.startswith("/") != target.startswith("/"):
        raise ValueError(f"{text!r} maps a serial port to a network address, or the other way round; {wanted}")
    if not source.startswith("/"):
        try:
            parts = urlsplit(f"//{target}")
            fine = parts.port is not None and loopback(parts.hostname or "")
        except ValueError:
            fine = False
        if not fine:
            raise ValueError(f"{target!r} is not a port of this machine; {wanted}")
    return source, target


def adapt(config: Path, given: Mapping[str, str], *, everything: bool) -> Path:
    """Writes `NAME.loopback.toml` beside `config` and returns its path.

    With `everything`, the broker, the agent's directory and the store move too: simulated readings have no place in a
    plant's own. Raises ConfigError where the file is no config, or a given mapping fits no device.
    """
    text = _text(config)
    places = Places(text)
    lines = text.split("\n")
    moved = Moves(given, config.absolute().parent / f"{config.stem}.ports", everything=everything)
    for path, old, new in _edits(tomllib.loads(text), moved, config, everything=everything):
        if old == new:
            continue
        line = places.line(path)
        for quote in "\"'":
            if line is not None and f"{quote}{old}{quote}" in lines[line - 1]:
                lines[line - 1] = lines[line - 1].replace(f"{quote}{old}{quote}", f"{quote}{new}{quote}", 1)
                break
        else:
            _refuse(config, ".".join(map(str, path)), "can't be mapped", f'write it as plain text: "{old}"', line)
    if odd := sorted(set(given) - moved.used):
        _refuse(config, "device", f"--map {odd[0]}: no device is there", "write the host as its url has it")
    target = config.with_name(f"{config.stem}.loopback.toml")
    note = f"# Made from {config.name} by `headrace simulate`: its devices are simulated on this machine.\n"
    target.write_text(note + "\n".join(lines), encoding="utf-8")
    return target


def _text(config: Path) -> str:
    try:
        text = config.read_text("utf-8-sig")
        tomllib.loads(text)
    except (OSError, ValueError) as reason:
        _refuse(config, "(file)", f"can't be read: {reason}", "run `headrace check` on it")
    return text


def _refuse(config: Path, field: str, message: str, hint: str, line: int | None = None) -> NoReturn:
    raise ConfigError([Problem(str(config), field, message, hint, line)])


def _edits(raw: dict[str, object], moved: Moves, config: Path, *, everything: bool) -> Iterator[tuple[_Way, str, str]]:
    """(path, what stands there, what is to stand there)."""
    devices = raw.get("device")
    for at, device in enumerate(devices if isinstance(devices, list) else ()):
        if not isinstance(device, dict):
            continue
        for key in ("url", "backup"):
            found = device.get(key)
            for old in found if isinstance(found, list) else (found,):
                if isinstance(old, str):
                    yield ("device", at, key), old, moved.url(old)
        url = device.get("url")
        if isinstance(url, str) and url.startswith("tls:") and moved.url(url) != url:
            # The virtual device shows a certificate of its own, which is made where this file is not.
            for key, value in (("ca", f"{config.stem}.simulated-ca.pem"), ("server_name", "localhost")):
                if isinstance(old := device.get(key), str):
                    yield ("device", at, key), old, value
    if not everything:
        return
    for table, key, change in (
        ("agent", "data_dir", lambda old: f"{old.rstrip('/')}-simulated"),
        ("datacenter", "store", lambda old: f"{old.rstrip('/')}-simulated"),
        ("uplink", "url", _broker),
    ):
        section = raw.get(table)
        if isinstance(section, dict) and isinstance(old := section.get(key), str):
            yield (table, key), old, change(old)


def _broker(url: str) -> str:
    parts = urlsplit(url)
    if loopback(parts.hostname or ""):
        return url
    return f"mqtt://127.0.0.1:{1883 if parts.scheme == 'mqtts' or not parts.port else parts.port}"
