"""Which headers are kept, and what of their values is shown."""

from typing import Any

import pytest

from auditlog.capture.redaction.keyed_hash import REDACTED
from auditlog.capture.redaction.redactor import Redactor
from auditlog.errors import SettingsError

ALL = Redactor(headers=["*"])


def shown(value: bytes, name: bytes = b"authorization") -> str:
    return ALL.headers([(name, value)])[name.decode("latin-1").lower()][0]


def test_only_listed_headers_are_kept() -> None:
    """What nobody asked for is not stored, secret or not."""
    redactor = Redactor(headers=["Accept", "x-request-id"])
    raw = [(b"accept", b"a"), (b"x-other", b"b"), (b"cookie", b"c"), (b"X-Request-ID", b"d")]
    assert redactor.headers(raw) == {"accept": ["a"], "x-request-id": ["d"]}


def test_duplicates_and_order_are_kept() -> None:
    """Values are lists, always."""
    raw = [(b"b", b"1"), (b"a", b"2"), (b"B", b"3"), (b"b", b"")]
    headers = ALL.headers(raw)
    assert list(headers.items()) == [("b", ["1", "3", ""]), ("a", ["2"])]


def test_every_byte_is_survived() -> None:
    """Header bytes are latin-1; names may be no tokens at all."""
    every = bytes(range(256))
    raw = [(every, b"v"), (b"user-agent", every), (b"\xff\\x", b"\xff\\x"), (b"", b"")]
    assert ALL.headers(raw) == {
        every.decode("latin-1").lower(): ["v"],
        "user-agent": [every.decode("latin-1")],
        "\xff\\x": ["\xff\\x"],
        "": [""],
    }


def test_headers_that_are_no_bytes_are_hidden() -> None:
    """A broken server or test client must not break the request, nor show a secret."""
    raw: Any = [(b"accept", None), (b"accept", 3), (b"accept", b"ok")]
    assert ALL.headers(raw) == {"accept": [REDACTED, REDACTED, "ok"]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"Bearer s3cr3t", "Bearer [REDACTED]"),
        (b"bearer  s3cr3t", "bearer [REDACTED]"),
        (b"Basic dXNlcjpwYXNz", "Basic [REDACTED]"),
        (b"AWS4-HMAC-SHA256 Credential=AKIA, Signature=s3cr3t", "AWS4-HMAC-SHA256 [REDACTED]"),
        (b'Digest username="u", response="s3cr3t"', "Digest [REDACTED]"),
        (b"s3cr3t", "[REDACTED]"),
        (b"my s3cr3t", "[REDACTED]"),
        (b"Bearer", "[REDACTED]"),
        (b"Bearer ", "[REDACTED]"),
        (b"", ""),
    ],
)
def test_authorization_keeps_a_known_scheme_only(value: bytes, expected: str) -> None:
    """Any other first word may be half of the secret."""
    assert shown(value) == expected
    assert shown(value, b"proxy-authorization") == expected
    assert shown(value, b"grpcgateway-authorization") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"session=s3cr3t; theme=s3cr3t", "session=[REDACTED]; theme=[REDACTED]"),
        (b"a=s3cr3t;b=s3cr3t==", "a=[REDACTED]; b=[REDACTED]"),
        (b's="s3cr3t; t=s3cr3t"; b=s3cr3t', "s=[REDACTED]; b=[REDACTED]"),
        (b'a="s3cr3t; b=s3cr3t', "a=[REDACTED]; b=[REDACTED]"),
        (b"s3cr3t", "[REDACTED]"),
        (b"=s3cr3t", "=[REDACTED]"),
        (b"gone=", "gone="),
        (b"s3cr3t" * 6 + b"==", "[REDACTED]"),
        (b"s3cr3t" * 20 + b"=x", "[REDACTED]"),
        (b"", ""),
    ],
)
def test_cookie_keeps_names(value: bytes, expected: str) -> None:
    """Which cookies came is telling; what is in them is not ours."""
    assert shown(value, b"cookie") == expected
    assert shown(value, b"grpcgateway-cookie") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            b"s=s3cr3t; Path=/; HttpOnly; Expires=Wed, 09 Jun 2021 10:23:40 GMT",
            "s=[REDACTED]; Path=/; HttpOnly; Expires=Wed, 09 Jun 2021 10:23:40 GMT",
        ),
        (b"s=s3cr3t; Path=/, t=s3cr3t; note=s3cr3t", "s=[REDACTED]; [REDACTED]; [REDACTED]"),
        (b"s3cr3t", "[REDACTED]"),
    ],
)
def test_set_cookie_keeps_name_and_attributes(value: bytes, expected: str) -> None:
    """An attribute that is none may be a second cookie."""
    assert shown(value, b"set-cookie") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"https://example.org/reset?token=s3cr3t", "https://example.org"),
        (b"https://user:s3cr3t@example.org:8080/x", "https://example.org:8080"),
        (b"http://[2001:db8::1]:80/s3cr3t", "http://[2001:db8::1]:80"),
        (b"http://h/s3cr3t", "http://h"),
        (b"ws://a/s3cr3t/x", "ws://a"),
        (b"http://user:s3cr3t\\@example.org/", "[REDACTED]"),
        (b"http://user:s3c/r3t@example.org/", "[REDACTED]"),
        (b"/reset?token=s3cr3t", "[REDACTED]"),
        (b"s3cr3t", "[REDACTED]"),
        (b"null", "null"),
    ],
)
def test_referer_and_origin_keep_the_origin(value: bytes, expected: str) -> None:
    """Where a user came from is not which token the last page had in its address."""
    assert shown(value, b"referer") == expected
    assert shown(value, b"origin") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"graphql-ws, chat", "graphql-ws, chat"),
        (b"graphql-ws, access_token, s3cr3t", "graphql-ws, [REDACTED]"),
        (b"realtime, openai-insecure-api-key.s3cr3t", "realtime, [REDACTED]"),
        (b"base64url.bearer.authorization.k8s.io.s3cr3t", "[REDACTED]"),
        (b"s3cr3t" * 10, "[REDACTED]"),
    ],
)
def test_subprotocols_hide_tokens(value: bytes, expected: str) -> None:
    """Browsers can send no header with a WebSocket, so tokens travel as subprotocols."""
    assert shown(value, b"sec-websocket-protocol") == expected


def test_urls_in_headers_are_redacted() -> None:
    """A reverse proxy repeats the target, with its query."""
    assert shown(b"/p?token=s3cr3t&a=1", b"x-original-uri") == "/p?token=[REDACTED]&a=1"


@pytest.mark.parametrize("name", [b"X-Autorization", b"auth2", b"x-forwarded-auth"])
def test_credentials_under_a_mistyped_name_are_hidden(name: bytes) -> None:
    """Under `*` the names are the client's."""
    assert shown(b"Bearer s3cr3t", name) == "Bearer [REDACTED]"
    assert shown(b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.s3cr3t", name) == "[REDACTED]"


def test_urls_in_headers_of_any_name_are_redacted() -> None:
    """Applications have headers of their own."""
    redactor = Redactor(headers=["x-callback", "user-agent"])
    raw = [(b"x-callback", b"https://u:s3cr3t@h/?token=s3cr3t"), (b"user-agent", b"a (+http://b)")]
    assert redactor.headers(raw) == {
        "x-callback": ["https://h/?token=[REDACTED]"],
        "user-agent": ["a (+http://b)"],
    }


def test_secret_headers_are_redacted_whatever_the_settings_say() -> None:
    """Listing a secret header by name shows that it was there, no more."""
    redactor = Redactor(headers=["authorization", "x-api-key", "cookie"])
    raw = [(b"authorization", b"Bearer s3cr3t"), (b"x-api-key", b"s3cr3t"), (b"cookie", b"a=b")]
    assert redactor.headers(raw) == {
        "authorization": ["Bearer [REDACTED]"],
        "x-api-key": ["[REDACTED]"],
        "cookie": ["a=[REDACTED]"],
    }


def test_header_names_that_cannot_be_are_refused() -> None:
    """A typo in the settings shows at the start."""
    with pytest.raises(SettingsError, match="no header name"):
        Redactor(headers=["x request id"])


def test_unknown_header_names_are_not_collected() -> None:
    """Clients choose the names; they must not fill the memory."""
    redactor = Redactor(headers=["*"])
    redactor.headers((f"x-{number}".encode(), b"v") for number in range(10_000))
    assert len(redactor._plan) <= 4096
