"""A real MQTT broker for the demo: Mosquitto where it is installed, otherwise the NATS server of the `demo` extra."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from agent.errors import HeadraceError


def command(kind: str, home: Path, port: int) -> tuple[str, list[str]]:
    """(name, command line) of a broker on 127.0.0.1:`port` that keeps its files in `home`. No root is needed."""
    home.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/local/sbin"
    mosquitto = shutil.which("mosquitto") or shutil.which("mosquitto", path=path)
    nats = shutil.which("nats-server", path=path) or shutil.which("nats-server")
    if kind != "nats" and mosquitto:
        config = home / "mosquitto.conf"
        lines = [
            f"listener {port} 127.0.0.1",
            "allow_anonymous true",
            "persistence true",
            f"persistence_location {home}/",
            "log_dest stderr",
            "log_type warning",
            "log_type error",
        ]
        # Started by root it would become a user that may not write here.
        config.write_text("\n".join([*lines, "user root"]) + "\n", encoding="utf-8")
        return "Mosquitto", [mosquitto, "-c", str(config)]
    if kind != "mosquitto" and nats:
        config = home / "nats.conf"
        config.write_text(
            f'server_name: demo\nlisten: "127.0.0.1:-1"\njetstream {{ store_dir: "{home}" }}\n'
            f'mqtt {{ listen: "127.0.0.1:{port}" }}\n',
            encoding="utf-8",
        )
        return "NATS", [nats, "-c", str(config)]
    raise HeadraceError("no MQTT broker is installed; write: pip install 'headrace[demo]', or install Mosquitto")
