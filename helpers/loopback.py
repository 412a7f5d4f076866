"""Which network addresses are on this machine."""

import ipaddress
from urllib.parse import urlsplit


def on_loopback(url: str) -> bool:
    """Whether nothing sent to this address leaves the machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name such as 127.0.0.1.example.org may be anywhere
        return False
