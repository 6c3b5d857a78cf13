"""Headers, targets, methods and heads that no browser sends."""

from collections.abc import Callable

from raw_client import Client
from scenario import (
    GRANIAN,
    HTTPTOOLS,
    HYPERCORN,
    REFUSED,
    TOO_LARGE,
    Differences,
    Scenario,
    http,
    raw,
)

# Headers.


def accepts(name: str, value: bytes, *, on: Differences | None = None) -> Scenario:
    shown = {"host": ["127.0.0.1"], "accept": [value.decode("latin-1").strip()]}
    return http(name, "/read", 200, b"Accept: " + value, on=on, headers=shown)


def bare(start: str, *headers: str) -> Callable[[Client], bytes]:
    """A head without the usual headers."""

    def data(client: Client) -> bytes:
        lines = [start, f"X-Request-Id: {client.request_id}", *headers]
        return "\r\n".join(lines).encode() + b"\r\n\r\n"

    return data


THOUSAND = [b"x-%d: 1" % number for number in range(1000)]
TARGETS = ("/%00", "/%ff", "/%ed%a0%80", "/a%2fb", "/%", "//read", "/read;a=1", "/a/../read")
QUERIES = ("/read?%ff%zz&&=", "/read?a=%00", "/read??a", "/read?\\")
TWO_HOSTS = {
    "sees": 200,
    "status": 200,
    "row": True,
    "headers": {"host": ["127.0.0.1", "other"]},
}
STRICT = {HTTPTOOLS: REFUSED, GRANIAN: REFUSED}

SCENARIOS = [
    accepts("header with high bytes", b"\xff\x80"),
    accepts("header with backslash and high byte", b"\xff\\x"),
    accepts("header with a tab", b"a\tb"),
    accepts("header that is empty", b""),
    accepts("header with a control byte", b"a\x01", on=STRICT),
    accepts("header with DEL", b"a\x7f", on=STRICT),
    http("header with NUL", "/read", 400, b"Accept: \0", row=False),
    http("header without a name", "/read", 400, b": 1", row=False),
    http(
        "header that is folded",
        "/read",
        200,
        b"Accept: a\r\n b",
        on=STRICT,
        headers={"host": ["127.0.0.1"], "accept": ["a b"]},
    ),
    http(
        "headers that come twice",
        "/read",
        200,
        b"Accept: a",
        b"Cookie: a=1",
        b"Accept: b",
        b"Cookie: b=2",
        headers={"host": ["127.0.0.1"], "accept": ["a", "b"]},
    ),
    http(
        "1000 headers",
        "/read",
        200,
        *THOUSAND,
        on={GRANIAN: TOO_LARGE},
    ),
    http("header of 70 KB", "/read", 200, b"x-a: " + b"x" * 70_000, on={HYPERCORN: TOO_LARGE}),
    *[http(f"target {hostile}", hostile) for hostile in TARGETS],
    *[http(f"query {hostile}", hostile) for hostile in QUERIES],
    http("target of 8 KB", "/" + "x" * 8000),
    # The row's bound for it is 8 KiB.
    http("target of 60 KB", "/" + "x" * 60_000, url="/" + "x" * 8191, repaired=["request_url"]),
    http("target with delimiters", '/"<>\\^`{|}', on={GRANIAN: REFUSED}),
    http("target with a byte that is no UTF-8", b"/\xff", 400, row=False),
    http(
        "target in UTF-8",
        b"/caf\xc3\xa9",
        400,
        row=False,
        on={
            GRANIAN: {"sees": 200, "status": 200, "row": True, "url": "/caf%C3%A9"},
        },
    ),
    http("query with a high byte", b"/read?\xff", 400, row=False),
    http("target with a space", "/a b", 400, row=False),
    http("target that is empty", "", 400, row=False),
    # Two parsers take a target apart, two hand on what was sent.
    http("fragment", "/read#x", on={HTTPTOOLS: {"url": "/read"}, GRANIAN: {"url": "/read"}}),
    http(
        "absolute form",
        "http://example.org/read?x=1",
        on={HTTPTOOLS: {"url": "/read?x=1"}, GRANIAN: {"url": "/read?x=1"}},
    ),
    http(
        "absolute form with credentials",
        "http://user:hunter2@example.org/read",
        url="http://example.org/read",
        on={HTTPTOOLS: {"url": "/read"}, GRANIAN: {"url": "/read"}},
    ),
    http("relative target", "read", on={HTTPTOOLS: REFUSED, GRANIAN: {"url": ""}}),
    http("asterisk form", "*", method="OPTIONS"),
    http("method PATCH", "/read", method="PATCH"),
    http("method TRACE", "/read", method="TRACE"),
    http("unknown method", "/read", method="FOO", on={HTTPTOOLS: REFUSED}),
    http(
        "method in lower case",
        "/read",
        method="get",
        on={HTTPTOOLS: REFUSED, HYPERCORN: {"method": "GET"}},
    ),
    http(
        "method of 200 characters",
        "/read",
        method="M" * 200,
        on={HTTPTOOLS: REFUSED},
        stored_method="M" * 64,
        repaired=["request_method"],
    ),
    raw(
        "HTTP/1.0 without host",
        bare("GET /read HTTP/1.0"),
        url="/read",
        headers={},
        # It makes an empty one.
        on={GRANIAN: {"headers": {"host": [""]}}},
    ),
    raw(
        "HTTP/1.1 without host",
        bare("GET /read HTTP/1.1"),
        400,
        row=False,
        url="/read",
        on={
            HTTPTOOLS: {"sees": 200, "status": 200, "row": True, "headers": {}},
            GRANIAN: {"sees": 200, "status": 200, "row": True, "headers": {"host": [""]}},
        },
    ),
    http(
        "two hosts",
        "/read",
        400,
        b"Host: other",
        row=False,
        on={HTTPTOOLS: TWO_HOSTS, GRANIAN: TWO_HOSTS},
    ),
    raw(
        "malformed host",
        bare("GET /read HTTP/1.1", "Host: a b@/"),
        url="/read",
        headers={"host": ["a b@/"]},
    ),
    raw("no HTTP at all", lambda _client: b"\x16\x03\x01\r\n\r\n", 400, row=False),
    raw(
        "two lengths",
        lambda client: (
            client.head("/echo", b"Content-Length: 3", b"Content-Length: 4", method="POST")
            + b"abcd"
        ),
        400,
        row=False,
    ),
    raw(
        "length and chunks",
        lambda client: (
            client.head("/echo", b"Content-Length: 3", b"Transfer-Encoding: chunked", method="POST")
            + b"3\r\nabc\r\n0\r\n\r\n"
        ),
        method="POST",
        url="/echo",
        received=3,
        sent=3,
        on={HTTPTOOLS: REFUSED},
    ),
]
