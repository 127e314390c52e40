"""Which hosts are this machine: simulated devices stay on it."""

from __future__ import annotations

import ipaddress


def loopback(host: str) -> bool:
    """By name or address; nothing is looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
