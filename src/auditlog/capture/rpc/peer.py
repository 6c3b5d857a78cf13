"""A peer as grpcio names it → an address, or None where there is none.

`ipv4:127.0.0.1:5000`, `ipv6:%5B::1%5D:5000`, `ipv6:[::1]:5000`, `unix:/path`, `unix:`, `vsock:3:1`:
the URIs of https://grpc.github.io/grpc/core/md_doc_naming.html. Never raises, makes nothing up.
"""

from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote

from auditlog.capture.remembered import Remembered


def address_of(peer: str) -> str | None:
    """Return the IP address; None for sockets that have none, and for what cannot be read."""
    scheme, _, rest = peer.partition(":")
    if scheme not in {"ipv4", "ipv6"}:
        return None
    host = unquote(rest)
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif scheme == "ipv4":
        host = host.partition(":")[0]
    try:
        ip_address(host)
    except ValueError:
        return None
    return host


ADDRESSES: Final = Remembered(address_of)
"""Peer → address: a connection keeps its name for all its RPCs."""
