"""Who is at the other end, when trusted proxies stand between.

Takes the connection's peer and the headers, gives the address of the client as far as it is
certain: from right to left through X-Forwarded-For or Forwarded (RFC 7239), as long as trusted
proxies vouch for the next hop. What cannot be read ends the walk; no value is made up.

A proxy writes one of the two headers and lets a client's other one pass, so when both are there
and disagree one of them is forged, and which is not known. Then neither is believed and the
nearest hop is the answer. Name the header that the proxies write to decide it.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeAlias

from auditlog.capture.remembered import Remembered
from auditlog.errors import SettingsError
from auditlog.settings import UNIX, ForwardingHeader

Network: TypeAlias = IPv4Network | IPv6Network
Verdict: TypeAlias = tuple[str | None, bool]
_X_FORWARDED_FOR, _FORWARDED = b"x-forwarded-for", b"forwarded"
_HEADERS = {"x-forwarded-for": (_X_FORWARDED_FOR,), "forwarded": (_FORWARDED,)}
_MAX_HOPS = 32
# [2001:db8::1%eth0]:443 and a quotation mark at either end fit.
_MAX_HOP_LENGTH = 72
_MAPPED_PREFIX_LENGTH = 96
_WITH_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::(?:\d{1,5}|_[\w.-]+))?")
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'(?:{_NAME}|"(?:[^"\\]|\\.)*")'
_ELEMENT = re.compile(rf"\s*{_NAME}={_VALUE}(?:\s*;\s*{_NAME}={_VALUE})*\s*")
_PAIR = re.compile(rf"({_NAME})=({_VALUE})")


class TrustedProxies:
    """The networks whose word is taken for where a request came from.

    Args:
        networks: CIDR (`10.0.0.0/8`), single addresses, or `unix`.
        header: The header that the proxies write. None: both are read, and must agree.

    Raises:
        SettingsError: something that is no network.
    """

    def __init__(self, networks: Sequence[str], *, header: ForwardingHeader | None = None) -> None:
        self._networks = [_network(text) for text in networks if text != UNIX]
        self._trusts_unix = UNIX in networks
        self._trusts_anyone = bool(networks)
        if header is not None and header not in _HEADERS:
            raise SettingsError(f"header must be one of {', '.join(_HEADERS)}, not {header!r}")
        self._names = frozenset(_HEADERS[header] if header else (_X_FORWARDED_FOR, _FORWARDED))
        self._verdicts: Remembered[str, Verdict] = Remembered(self._judge)

    def resolve(self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Return the client's address, or the peer where nothing better is certain."""
        if not self._trusts_anyone:
            return peer
        if peer:
            address, trusted = self._verdicts[peer]
            if not trusted:
                return address or peer
            peer = address
        elif not self._trusts_unix:
            return peer
        return self._through_proxies(peer, headers)

    def _through_proxies(
        self, peer: str | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> str | None:
        lines: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name in self._names:
                lines.setdefault(name, []).append(value)
        answers = {
            self._walk(peer, _hops(name, b",".join(values))) for name, values in lines.items()
        }
        return answers.pop() if len(answers) == 1 else peer

    def _walk(self, nearest: str | None, hops: list[str]) -> str | None:
        for hop in reversed(hops):
            address, trusted = self._verdicts[hop]
            if address is None:
                break
            nearest = address
            if not trusted:
                break
        return nearest

    def _judge(self, text: str) -> Verdict:
        """Return the address in its one spelling, and whether it is a trusted proxy's."""
        address = _address(text)
        if address is None:
            return None, False
        return str(address), any(address in network for network in self._networks)


def _network(text: str) -> Network:
    try:
        network = ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise SettingsError(
            f"trusted_proxies: {error}; write a network like 10.0.0.0/8, an address, or {UNIX}"
        ) from None
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_PREFIX_LENGTH:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX_LENGTH))
    return network


def _hops(name: bytes, line: bytes) -> list[str]:
    """Split from the right, so that nothing a client wrote on the left shifts the rest."""
    elements = line.rsplit(b",", _MAX_HOPS)[-_MAX_HOPS:]
    texts = [element.decode("latin-1") for element in elements]
    return [_forwarded_for(text) for text in texts] if name == _FORWARDED else texts


def _forwarded_for(element: str) -> str:
    """Return what an element of Forwarded says of its `for`; empty where it is malformed."""
    if not _ELEMENT.fullmatch(element):
        return ""
    # A quoted value may hold what looks like another pair, so they are read in order.
    nodes = [value for name, value in _PAIR.findall(element) if name.lower() == "for"]
    return nodes[0] if len(nodes) == 1 else ""


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address with or without brackets, port and quotes; None for anything else."""
    text = text.strip().strip('"')
    if len(text) > _MAX_HOP_LENGTH:
        return None
    with_port = _WITH_PORT.fullmatch(text)
    if with_port:
        text = with_port[1] or with_port[2]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
