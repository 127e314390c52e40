"""`headrace init`: a commented config and two tag lists that run as they are against `headrace simulate`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from agent.errors import HeadraceError

PLANT = """\
# Headrace. `headrace check plant.toml` finds every mistake, `headrace plan plant.toml` says what it would ask for,
# `headrace simulate plant.toml` plays these devices.

[agent]
id = "press-shop-1"
data_dir = "./var/press-shop-1"     # the outbox: readings wait here until the data center has them

[identifiers]
prefix = "88.118.8"                 # your registered prefix
template = "{prefix}/{device}.{tag}"

[seal]
after = "1s"                        # a reading is safe on disk after at most this long
bytes = "64 KiB"

[outbox]
max_bytes = "2 GiB"
when_full = "drop_oldest"           # or "stop_collecting"

[uplink]
url = "mqtt://127.0.0.1:1883"       # mqtts:// for TLS
format = "block"
confirm = "datacenter"              # or "broker", which does not survive the loss of the broker's memory

[[device]]
name = "press1"
protocol = "modbus"
url = "tcp://127.0.0.1:5020"
unit = 1
poll = "500ms"                      # a tag may have its own, in the column poll
tags = "press1.csv"                 # every column and type: docs/tag-list.md

[[device]]
name = "furnace"
protocol = "opcua"
url = "opc.tcp://127.0.0.1:4840"
security = "None"                   # only on a network that you trust
publish = "500ms"
tags = "furnace.csv"

[datacenter]                        # read by `headrace datacenter`
store = "./var/datacenter"
http = "127.0.0.1:8080"
"""
PRESS = """\
name,address,type,order,unit,scale,offset,low,high,invalid,poll,filter,identifier,domain,level,description
temp,hr:100,float32,ABCD,°C,,,0,400,NaN,,deadband=0.1,,production,1,die temperature
count,ir:8,uint32,CDAB,pcs,,,,,,10s,,,production,2,strokes since start
running,co:3,bool,,,,,,,,,,,production,1,
"""
FURNACE = """\
name,address,type,unit,low,high,filter,identifier,domain,level,description
zone1,nsu=urn:furnace;s=Zone1.Temp,float32,°C,0,1200,,,production,1,first heating zone
batch,nsu=urn:furnace;s=Batch,string,,,,,,production,2,batch in the furnace
"""


def main(options: argparse.Namespace) -> int:
    """Writes the three files; overwrites nothing."""
    directory: Path = options.directory
    files = {"plant.toml": PLANT, "press1.csv": PRESS, "furnace.csv": FURNACE}
    there = [name for name in files if (directory / name).exists()]
    if there:
        raise HeadraceError(f"{directory / there[0]} exists already; nothing was written. Name another directory")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as reason:
        raise HeadraceError(f"{reason.filename}: {reason.strerror}") from None
    if options.json:
        print(json.dumps({"files": [str(directory / name) for name in files]}))
    else:
        print(f"wrote {', '.join(str(directory / name) for name in files)}")
        print(f"next: headrace check {directory / 'plant.toml'}")
    return 0
