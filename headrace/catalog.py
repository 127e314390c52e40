"""`headrace catalog`: the catalog of a config as the data center gets it, or as entries of a resource directory.

The directory form has the elements of GB/T 21063.3-2007 by their names; the text of the standard is not free, so this
was not checked against it, and conformity is not claimed.
"""

from __future__ import annotations

import argparse
import json
from typing import Any
from urllib.parse import quote

import orjson

from agent import config as configs
from agent.config import Config
from agent.labels import CHINESE
from agent.wire import Catalog, epoch_of

KIND = "工业数据"


def main(options: argparse.Namespace) -> int:
    config = configs.load(options.config)
    catalog = config.catalog()
    body = catalog.encode()
    if options.format == "gbt21063":
        found: dict[str, Any] = directory(config, catalog)
    else:
        found = {"epoch": f"{epoch_of(body):016x}", **orjson.loads(body)}
    print(json.dumps(found, ensure_ascii=False, indent=None if options.json else 2))
    return 0


def directory(config: Config, catalog: Catalog) -> dict[str, Any]:
    """One entry for each tag: six elements that must be there, and those of the other six that are known."""
    epoch = f"{epoch_of(catalog.encode()):016x}"
    entries = []
    for tag in catalog.tags:
        product = catalog.products.get(tag.device, {})
        entry = {
            "信息资源名称": tag.description or f"{tag.device} {tag.name}",
            "信息资源摘要": f"{tag.device}.{tag.name}, {tag.type}" + (f", {tag.unit}" if tag.unit else ""),
            "信息资源提供方": catalog.agent,
            "信息资源分类": _class(tag.domain, tag.level, tag.category),
            "信息资源标识符": tag.identifier,
            "元数据标识符": f"{tag.identifier}@{epoch}",
            "关键字": [word for word in (tag.device, tag.name, product.get("product_name")) if word],
            "服务信息": {"协议": tag.source.get("protocol", ""), "地址": tag.source.get("address", "")},
            "元数据维护方": catalog.agent,
        }
        if config.datacenter is not None:
            entry["在线资源链接地址"] = f"http://{config.datacenter.http}/api/handles/{quote(tag.identifier, safe='/')}"
        entries.append(entry)
    note = "elements named after GB/T 21063.3-2007; not checked against its text"
    return {"format": "gbt21063.3", "note": note, "epoch": epoch, "entries": entries}


def _class(domain: str, level: int | None, category: str) -> dict[str, str]:
    found = {"类": KIND}
    if domain:
        found["数据域"] = f"{CHINESE[domain]}数据域"
    if level:
        found["级别"] = {1: "一级", 2: "二级", 3: "三级"}[level]
    if category:
        found["类别"] = f"{CHINESE[category]}数据"
    return found
