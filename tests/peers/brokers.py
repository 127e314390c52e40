"""Real MQTT brokers."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.peers.process import Peer, free_port, listens, program


class Broker(Peer):
    """An MQTT broker without passwords; `url` is `mqtt://127.0.0.1:PORT`."""

    scheme = "mqtt"

    def ready(self) -> bool:
        return listens(self.port)


class Mosquitto(Broker):
    """Eclipse Mosquitto 2, MQTT 3.1.1 and 5.

    `persistence` writes its store to `home/store` when it stops, and every `autosave_interval` seconds: after a kill -9
    it has lost what it acknowledged since. `settings` are more lines of mosquitto.conf.
    """

    def __init__(
        self, home: Path, port: int | None = None, *, persistence: bool = True, settings: tuple[str, ...] = ()
    ) -> None:
        super().__init__(home, port)
        self.persistence = persistence
        self.settings = settings

    def command(self) -> list[str]:
        store = self.home / "store"
        store.mkdir(exist_ok=True)
        config = self.home / "mosquitto.conf"
        lines = [
            f"listener {self.port} 127.0.0.1",
            "allow_anonymous true",
            "user root",  # started by root it would else become a user that may not write to `home`
            "log_dest stderr",
            f"persistence {'true' if self.persistence else 'false'}",
            f"persistence_location {store}/",
            *self.settings,
        ]
        config.write_text("\n".join(lines) + "\n")
        return [program("mosquitto"), "-c", str(config)]


class Nats(Broker):
    """nats-server with JetStream and MQTT 3.1.1: what it acknowledged outlives a kill -9."""

    def __init__(self, home: Path, port: int | None = None) -> None:
        super().__init__(home, port)
        self._own_port = free_port()

    def command(self) -> list[str]:
        config = self.home / "nats.conf"
        config.write_text(
            f"""\
server_name: "headrace-test"
listen: "127.0.0.1:{self._own_port}"
jetstream {{ store_dir: "{self.home / "store"}" }}
mqtt {{ host: "127.0.0.1", port: {self.port} }}
"""
        )
        beside = Path(sys.executable).with_name("nats-server")
        return [str(beside) if beside.exists() else program("nats-server"), "-c", str(config)]
