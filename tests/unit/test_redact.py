"""Targets, URLs, forms and free text: what stays, and what is hidden."""

import time
from typing import Any

import pytest

from auditlog.capture.redaction.keyed_hash import REDACTED
from auditlog.capture.redaction.redactor import Redactor

ALL = Redactor(headers=["*"])


def target(query: str) -> str:
    return ALL.target(b"/p", query.encode("latin-1")).removeprefix("/p?")


# Targets


@pytest.mark.parametrize(
    "query",
    [
        "a=1&b=2",
        "q=hello%20world&page=2",
        "sort_key=name&monkey=1&max_tokens=5&token_type=x",
        "at=2024-01-01T10:00:00Z&to=2024-01-01T10%3A00%3A00%2B02%3A00",
        "next=https%3A%2F%2Fexample.org%3A8080%2Fpath%3Fa%3D1",
        "next=https://example.org&email=joe@example.org",
        "filter={%22a%22:1}",
        "state=open",
        "debug",
        "a=&b",
        "a=b=c",
        "a;b=1",
        "%",
        "%zz=%",
        "&&",
    ],
)
def test_innocent_queries_are_unchanged(query: str) -> None:
    """Nothing is decoded, sorted or otherwise improved."""
    assert target(query) == query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Password=s3cr3t&a=1", "Password=[REDACTED]&a=1"),
        ("%70assword=s3cr3t", "%70assword=[REDACTED]"),
        ("%2570assword=s3cr3t", "%2570assword=[REDACTED]"),
        ("pass+word=s3cr3t", "pass+word=[REDACTED]"),
        ("a[password]=s3cr3t", "a[password]=[REDACTED]"),
        ("a%5Bpassword%5D=s3cr3t", "a%5Bpassword%5D=[REDACTED]"),
        ("user.password=s3cr3t", "user.password=[REDACTED]"),
        ("token[]=s3cr3t&token[]=s3cr3t", "token[]=[REDACTED]&token[]=[REDACTED]"),
        ("a=1;token=s3cr3t&b=2", "a=1;token=[REDACTED]&b=2"),
        ("token=s3cr3t;s3cr3t&b=2", "token=[REDACTED]&b=2"),
        ("token=s3cr3t=s3cr3t", "token=[REDACTED]"),
        ("a=b=token=s3cr3t", "a=b=token=[REDACTED]"),
        ("amp;token=s3cr3t", "amp;token=[REDACTED]"),
        ("a=1?token=s3cr3t", "a=1?token=[REDACTED]"),
        ("a=1#access_token=s3cr3t", "a=1#access_token=[REDACTED]"),
        ("a=b%26token%3Ds3cr3t", "a=b%26token%3D[REDACTED]"),
        ("=s3cr3t", "=[REDACTED]"),
        ("a=1;=s3cr3t", "a=1;=[REDACTED]"),
        ("token", "token"),
        ("token=", "token="),
        ("s3cr3t" * 8, "[REDACTED]"),
        ("s3cr3t" * 8 + "==", "[REDACTED]"),
        ("code=s3cr3t&state=s3cr3t", "code=[REDACTED]&state=[REDACTED]"),
        ("state=s3cr3t&error=denied", "state=[REDACTED]&error=denied"),
        ("%73tate=s3cr3t&client_id=web", "%73tate=[REDACTED]&client_id=web"),
        ("client_assertion=s3cr3t", "client_assertion=[REDACTED]"),
        ("X-Amz-Signature=s3cr3t&X-Amz-Date=1", "X-Amz-Signature=[REDACTED]&X-Amz-Date=1"),
        ("sv=2024&sig=s3cr3t", "sv=2024&sig=[REDACTED]"),
        ("next=https%3A%2F%2Fu%3As3cr3t%40host%2Fp", "next=https://host/p"),
        ("next=https%253A%252F%252Fu%253As3cr3t%2540host%252Fp", "next=https://host/p"),
        ("next=%2Fcb%3Ftoken%3Da%2526s3cr3t", "next=/cb%3Ftoken%3D[REDACTED]"),
        ("next=https://u:s3cr3t@host/p", "next=https://host/p"),
        ("next=//u:s3cr3t@host/p", "next=//host/p"),
        ("dsn=postgres://u:s3cr3t/s3cr3t@host/db", "dsn=postgres://[REDACTED]@host/db"),
        ("dsn=postgres://u:s3cr3t&s3cr3t@host/db", "dsn=postgres://[REDACTED]@host/db"),
        ("next=%2Fcb%3Faccess_token%3Ds3cr3t%26a%3D1",
         "next=/cb%3Faccess_token%3D[REDACTED]%26a%3D1"),
        ("next=%2Fcb%23id_token%3Ds3cr3t", "next=/cb%23id_token%3D[REDACTED]"),
        ("variables=%7B%22password%22%3A%22s3cr3t%22%7D",
         "variables=%7B%22password%22:%22[REDACTED]%22%7D"),
        ('q={"password":"s3cr3t"}', 'q={"password":"[REDACTED]"}'),
        ("query=mutation%7Blogin(password%3A%22s3cr3t%20s3cr3t%22)%7D",
         "query=mutation%7Blogin%28password:%22[REDACTED]%22%29%7D"),
        ("q=%2525252525253As3cr3t", "q=[REDACTED]"),
    ],
)  # fmt: skip
def test_secrets_in_queries_are_hidden(query: str, expected: str) -> None:
    """The name is kept, the value goes, whatever way it was written."""
    assert target(query) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/users/42", "/users/42"),
        (b"/", "/"),
        (b"", ""),
        (b"*", "*"),
        (b"//x/..", "//x/.."),
        (b"/a%2Fb%00", "/a%2Fb%00"),
        (b"/@joe/x@y", "/@joe/x@y"),
        (b"/a;v=1/b", "/a;v=1/b"),
        (b"/a;jsessionid=s3cr3t", "/a;jsessionid=[REDACTED]"),
        (b"http://user:s3cr3t@host/x", "http://host/x"),
        (b"HTTP://s3cr3t@host", "HTTP://host"),
        (b"//user:s3cr3t@host/x", "//host/x"),
        (b"/r/https%3A%2F%2Fu%3As3cr3t%40host%2F", "/r/https://host/"),
        (b"host:443", "host:443"),
    ],
)
def test_paths_lose_userinfo_and_secret_parameters(path: bytes, expected: str) -> None:
    """Some servers give the whole URL as the path."""
    assert ALL.target(path, b"") == expected


def test_targets_are_printable_ascii() -> None:
    """No byte of a client reaches a terminal or a column that cannot hold it."""
    every = bytes(range(256))
    text = ALL.target(every, every)
    assert text.isascii()
    assert text.isprintable()
    assert " " not in text
    assert ALL.target(b"/\x00\xff\xc3\xa9 ", b"\x7f") == "/%00%FF%C3%A9%20?%7F"


def test_targets_that_are_no_bytes_are_hidden() -> None:
    """The row is there, without what could not be judged."""
    broken: Any = None
    assert ALL.target(broken, b"") == REDACTED
    assert ALL.target(b"/", object()) == REDACTED  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    ("start", "repeated", "end"),
    [
        (b"", b"a=1&", b""),
        (b"", b"a=", b""),
        (b"", b"a;", b"=1"),
        (b"a;b=", b"c", b""),
        (b"", b"%25", b""),
        (b"", b":", b""),
        (b"@", b"a://b:c", b""),
        (b"", b"a://b:c", b"@"),
        (b"", b"a://", b"@"),
        (b"x=", b'password:"', b""),
        (b"", b"{", b""),
        (b"x=", b"[", b":"),
        (b"x=:", b"a", b""),
        (b"x=:", b"a ", b""),
        (b"x=%3A", b"bearer+", b""),
        (b"x=%3A", b"a+", b"="),
        (b"x=:", b'"', b""),
        (b"", b"password=1&", b""),
        (b"x=%3A+", b"token%3Da+", b""),
    ],
    ids=repr,
)
def test_long_queries_take_linear_time(start: bytes, repeated: bytes, end: bytes) -> None:
    """Ten times the length takes about ten times as long, whatever the bytes."""
    few, many = (start + repeated * (size // len(repeated)) + end for size in (10**5, 10**6))
    assert _seconds(many) < 40 * _seconds(few) + 0.2


def test_ten_megabytes_take_seconds() -> None:
    """No server accepts such a target; it would do no harm."""
    assert _seconds(b"a=1&b=%3A&" * 10**6) < 5


def _seconds(query: bytes) -> float:
    started = time.perf_counter()
    ALL.target(b"/", query)
    return time.perf_counter() - started


def test_more_parameters_than_anyone_sends_are_hidden() -> None:
    """Judging names takes time, and that is bounded; what was not judged is not shown."""
    many = ALL.target(b"/", b"a=1&" * 5_000 + b"x=s3cr3t")
    assert many.startswith("/?a=1&a=1&")
    assert many.endswith("&[REDACTED]")
    assert "s3cr3t" not in ALL.target(b"/", b"a=" * 5_000 + b"s3cr3t")
    assert "s3cr3t" not in ALL.text("a: b " * 5_000 + "s3cr3t")


# URLs, forms, free text


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://u:s3cr3t@h/p?token=s3cr3t#access_token=s3cr3t&a=1",
         "https://h/p?token=[REDACTED]#access_token=[REDACTED]&a=1"),
        ("https://u:s3cr3t@s3cr3t@h/", "https://h/"),
        ("#/route?token=s3cr3t", "#/route?token=[REDACTED]"),
        ("../x?token=s3cr3t", "../x?token=[REDACTED]"),
        ("?token=s3cr3t", "?token=[REDACTED]"),
        ("http:\\\\u:s3cr3t@h", "http:\\\\h"),
        ("https://example.org/ü?a=ü", "https://example.org/ü?a=ü"),
        ("mailto:joe@example.org", "mailto:joe@example.org"),
        ("", ""),
    ],
)  # fmt: skip
def test_urls_lose_userinfo_and_secret_parameters(url: str, expected: str) -> None:
    """Absolute or relative, in the query or in the fragment."""
    assert ALL.url(url) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"user=joe&password=s3cr3t", "user=joe&password=[REDACTED]"),
        (b"grant_type=authorization_code&code=s3cr3t&client_secret=s3cr3t",
         "grant_type=authorization_code&code=[REDACTED]&client_secret=[REDACTED]"),
        (b"p\x00a\x00s\x00s\x00w\x00o\x00r\x00d\x00=s3cr3t",
         "p%00a%00s%00s%00w%00o%00r%00d%00=[REDACTED]"),
        ("name=\xfc\u20ac".encode(), "name=%C3%BC%E2%82%AC"),
        (b"name=\xff", "name=%FF"),
    ],
)  # fmt: skip
def test_forms_lose_secret_parameters(body: bytes, expected: str) -> None:
    """A form is a query string without a question mark."""
    assert ALL.form(body) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nothing to see", "nothing to see"),
        ("at 10:00, a = b", "at 10:00, a = b"),
        ("basic knowledge: bearer authentication", "basic knowledge: bearer authentication"),
        ("code: 404, key: name, state: open", "code: 404, key: name, state: open"),
        ("see https://u:s3cr3t@h/?token=s3cr3t ok", "see https://h/?token=[REDACTED] ok"),
        ("password: s3cr3t", "password: [REDACTED]"),
        ("my password = s3cr3t", "my password = [REDACTED]"),
        ('the API key: "s3cr3t s3cr3t" ok', 'the API key: "[REDACTED]" ok'),
        ("password='s3cr3t s3cr3t' ok", "password='[REDACTED]' ok"),
        ('{"password": "s3cr3t', '{"password": "[REDACTED]"'),
        (r'{\"password\":\"s3cr3t\"}', r'{\"password\":\"[REDACTED]"'),
        ("Authorization: Bearer s3cr3t ok", "Authorization: Bearer [REDACTED]"),
        ("Cookie: a=s3cr3t; b=s3cr3t\nHost: h", "Cookie: [REDACTED]\nHost: h"),
        ('Authorization: Digest a="s3cr3t", b="s3cr3t"', "Authorization: Digest [REDACTED]"),
        ('{"cookie": "a=s3cr3t; b=s3cr3t", "c": 1', '{"cookie": "[REDACTED]", "c": 1'),
        ("curl -H 'x: Bearer s3cr3tS3cr3t'", "curl -H 'x: Bearer [REDACTED]"),
        ("pwd: s3cr3t token: s3cr3t", "pwd: [REDACTED] token: [REDACTED]"),
        ('login(user:"joe", password:"s3cr3t s3cr3t"){id}',
         'login(user:"joe", password:"[REDACTED]"){id}'),
        ('{"a": {"password": "s3cr3t"}}', '{"a":{"password":"[REDACTED]"}}'),
        ('{"x":{"password":"s3cr3t"},"x":1}', '{"x":{"password":"[REDACTED]"},"x":1}'),
    ],
)  # fmt: skip
def test_free_text_loses_what_names_give_away(text: str, expected: str) -> None:
    """The best that can be done with prose."""
    assert ALL.text(text) == expected


@pytest.mark.parametrize("quotes", ['"""', "'''"])
def test_block_strings_are_hidden(quotes: str) -> None:
    """A string of GraphQL or Python may hold quotation marks, spaces and line breaks."""
    text = f'login(user: "ada", password: {quotes}my "s3cr3t"\n is long{quotes}, again: 1)'
    shown = Redactor(headers=()).text(text)
    assert "s3cr3t" not in shown
    assert "long" not in shown
    assert shown.startswith('login(user: "ada", password: ')
