"""Whose address is believed, and when."""

import time
from ipaddress import ip_address
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.client_address import TrustedProxies
from auditlog.errors import SettingsError

PROXY = "10.0.0.1"
PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:ffff::/48"])


def xff(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-forwarded-for", value.encode("latin-1")) for value in values]


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"forwarded", value.encode("latin-1")) for value in values]


class Untouchable:
    def __iter__(self) -> Any:
        raise AssertionError("the headers were looked at")


@pytest.mark.parametrize("peer", ["203.0.113.7", "testclient", "", None])
def test_without_trusted_networks_the_peer_is_the_client(peer: str | None) -> None:
    """Nobody vouches for the headers, so they are not even read."""
    headers: Any = Untouchable()
    assert TrustedProxies([]).resolve(peer, headers) == peer


@pytest.mark.parametrize("peer", ["203.0.113.7", "testclient", "", None])
def test_untrusted_peer_is_the_client(peer: str | None) -> None:
    """A header from just anyone is no evidence."""
    headers: Any = Untouchable()
    assert PROXIES.resolve(peer, headers) == peer


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ([], PROXY),
        (xff("203.0.113.7"), "203.0.113.7"),
        (xff("6.6.6.6, 203.0.113.7"), "203.0.113.7"),
        (xff("6.6.6.6, 203.0.113.7, 10.1.1.1"), "203.0.113.7"),
        (xff("6.6.6.6", "203.0.113.7,10.1.1.1", "10.2.2.2"), "203.0.113.7"),
        (xff("10.1.1.1, 10.2.2.2"), "10.1.1.1"),
        (xff(" 203.0.113.7 "), "203.0.113.7"),
        (xff("203.0.113.7:4711"), "203.0.113.7"),
        (xff("[2001:db8::1]:4711"), "2001:db8::1"),
        (xff("[2001:db8::1]"), "2001:db8::1"),
        (xff("2001:DB8:0::1"), "2001:db8::1"),
        (xff("2001:db8:ffff::1, 203.0.113.7, 2001:db8:ffff::2"), "203.0.113.7"),
        (xff("::ffff:203.0.113.7"), "203.0.113.7"),
        (xff("203.0.113.7, ::ffff:10.1.1.1"), "203.0.113.7"),
        (xff("fe80::1%eth0"), "fe80::1"),
        (xff("203.0.113.7, garbage"), PROXY),
        (xff("203.0.113.7, garbage, 10.1.1.1"), "10.1.1.1"),
        (xff("203.0.113.7, unknown"), PROXY),
        (xff("203.0.113.7,"), PROXY),
        (xff(""), PROXY),
        (xff("203.0.113.007"), PROXY),
        (xff("203.0.113.7:x"), PROXY),
        (xff("\xb2.0.0.1"), PROXY),
        (xff("2001:db8::1:" * 1000), PROXY),
        (forwarded("for=203.0.113.7;proto=https;by=10.0.0.1"), "203.0.113.7"),
        (forwarded('For="[2001:db8::1]:4711"'), "2001:db8::1"),
        (forwarded('for="203.0.113.7:_port"'), "203.0.113.7"),
        (forwarded("for=6.6.6.6, for=203.0.113.7", "for=10.1.1.1"), "203.0.113.7"),
        (forwarded('for=6.6.6.6;x=", for="[2001:db8::1]"'), "2001:db8::1"),
        (forwarded('host="x;for=6.6.6.6";for=203.0.113.7'), "203.0.113.7"),
        (forwarded("for=unknown"), PROXY),
        (forwarded("for=_hidden, for=10.1.1.1"), "10.1.1.1"),
        (forwarded("proto=https"), PROXY),
        (forwarded("for=6.6.6.6;for=203.0.113.7"), PROXY),
        (forwarded("for=203.0.113.7;;"), PROXY),
        (forwarded('for="203.0.113.7'), PROXY),
        (forwarded(""), PROXY),
    ],
)
def test_trusted_hops_are_followed_to_the_first_other_one(
    headers: list[tuple[bytes, bytes]], client: str
) -> None:
    """From right to left; what cannot be read ends the walk at the last good hop."""
    assert PROXIES.resolve(PROXY, headers) == client


def test_forged_second_header_is_not_believed() -> None:
    """A proxy writes one of the two and lets the other pass: one is the client's own."""
    honest, forged = xff("203.0.113.7"), forwarded("for=6.6.6.6")
    assert PROXIES.resolve(PROXY, honest + forged) == PROXY
    assert PROXIES.resolve(PROXY, xff("6.6.6.6") + forwarded("for=203.0.113.7")) == PROXY


def test_headers_that_agree_are_believed() -> None:
    """Some proxies write both."""
    headers = forwarded('for="203.0.113.7:1"') + xff("6.6.6.6, 203.0.113.7")
    assert PROXIES.resolve(PROXY, headers) == "203.0.113.7"


@pytest.mark.parametrize(
    ("header", "client"), [("x-forwarded-for", "203.0.113.7"), ("forwarded", "6.6.6.6")]
)
def test_named_header_alone_is_read(header: Any, client: str) -> None:
    """Who knows what the proxies write can say so."""
    proxies = TrustedProxies(["10.0.0.0/8"], header=header)
    headers = xff("203.0.113.7") + forwarded("for=6.6.6.6")
    assert proxies.resolve(PROXY, headers) == client


def test_hops_beyond_the_limit_are_not_read() -> None:
    """The client can write as many as it likes."""
    assert PROXIES.resolve(PROXY, xff("203.0.113.7" + ", 10.1.1.1" * 31)) == "203.0.113.7"
    assert PROXIES.resolve(PROXY, xff("203.0.113.7" + ", 10.1.1.1" * 32)) == "10.1.1.1"


def test_megabytes_of_hops_take_no_time() -> None:
    """Only the right end is taken apart."""
    headers = xff("6.6.6.6," * 1_000_000 + "203.0.113.7")
    started = time.perf_counter()
    assert PROXIES.resolve(PROXY, headers) == "203.0.113.7"
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("peer", [None, ""])
def test_unix_socket_peers_are_trusted_by_name(peer: str | None) -> None:
    """They have no address that a network could hold."""
    proxies = TrustedProxies(["unix"])
    assert proxies.resolve(peer, xff("203.0.113.7")) == "203.0.113.7"
    assert proxies.resolve(peer, xff("garbage")) == peer
    assert proxies.resolve("203.0.113.9", xff("6.6.6.6")) == "203.0.113.9"


def test_mapped_peer_is_the_address_it_maps() -> None:
    """A dual-stack socket shows IPv4 peers as ::ffff:…"""  # noqa: D415  # an ellipsis ends it
    assert PROXIES.resolve("::ffff:10.0.0.1", xff("203.0.113.7")) == "203.0.113.7"
    assert PROXIES.resolve("::ffff:203.0.113.9", xff("6.6.6.6")) == "203.0.113.9"
    mapped = TrustedProxies(["::ffff:10.0.0.0/104"])
    assert mapped.resolve("10.0.0.1", xff("203.0.113.7")) == "203.0.113.7"


@pytest.mark.parametrize("network", ["10.0.0.0/33", "*", "", "localhost", "10.0.0"])
def test_what_is_no_network_is_refused(network: str) -> None:
    """At the start, with what would be right."""
    with pytest.raises(SettingsError, match=r"10\.0\.0\.0/8"):
        TrustedProxies([network])


def test_unknown_header_is_refused() -> None:
    """X-Real-IP names no chain of hops."""
    header: Any = "x-real-ip"
    with pytest.raises(SettingsError, match="x-forwarded-for"):
        TrustedProxies(["10.0.0.0/8"], header=header)


def test_addresses_are_not_collected() -> None:
    """Clients choose them; they must not fill the memory."""
    for number in range(10_000):
        PROXIES.resolve(PROXY, xff(f"2001:db8::{number:x}"))
    assert len(PROXIES._verdicts) <= 4096


parts = st.sampled_from(
    ["for=", '"', ",", ";", "[", "]", ":", "203.0.113.7", "10.1.1.1", "::1", "%", " ", "x", "\xff"]
)


@given(st.lists(parts, max_size=8).map("".join), st.lists(parts, max_size=8).map("".join))
def test_answer_is_always_an_address_that_was_there(one: str, other: str) -> None:
    """No header, however broken, makes up a client."""
    for headers in (xff(one), forwarded(other), xff(one) + forwarded(other)):
        client = PROXIES.resolve(PROXY, headers) or ""
        assert client == PROXY or _stands_in(ip_address(client), f"{one} {other}")


def _stands_in(address: object, text: str) -> bool:
    for start, end in combinations(range(len(text) + 1), 2):
        try:
            if ip_address(text[start:end]) == address:
                return True
        except ValueError:
            continue
    return False
