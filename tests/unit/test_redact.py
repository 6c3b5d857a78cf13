"""What the redactor keeps and what it hides, case by case."""

import dataclasses
import enum
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from auditlog.capture.keyed_hash import REDACTED, Mask
from auditlog.capture.redact import Redactor
from auditlog.errors import SettingsError

KEY = "0123456789abcdef"
ALL = Redactor(headers=["*"])


def shown(value: bytes, name: bytes = b"authorization") -> str:
    return ALL.headers([(name, value)])[name.decode("latin-1").lower()][0]


def target(query: str) -> str:
    return ALL.target(b"/p", query.encode("latin-1")).removeprefix("/p?")


# Headers


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
    assert ALL.headers([(every, every), (b"\xff\\x", b"\xff\\x"), (b"", b"")]) == {
        every.decode("latin-1").lower(): [every.decode("latin-1")],
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
        (b"graphql-ws, access_token, s3cr3t", "graphql-ws, [REDACTED], [REDACTED]"),
        (b"realtime, openai-insecure-api-key.s3cr3t", "realtime, [REDACTED], [REDACTED]"),
        (b"base64url.bearer.authorization.k8s.io.s3cr3t", "[REDACTED], [REDACTED]"),
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
        ("Authorization: Bearer s3cr3t ok", "Authorization: Bearer [REDACTED] ok"),
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


# JSON


class Credentials(NamedTuple):
    user: str
    password: str


@dataclasses.dataclass
class Login:
    user: str
    api_key: str


class Word(enum.Enum):
    SECRET = "https://u:s3cr3t@h/"


class Text(str):
    __slots__ = ()

    def replace(self, *_: Any) -> str:
        raise AssertionError("foreign code")


class Endless(list[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(int, 1)


class Hostile(Mapping[str, int]):
    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("s3cr3t")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, key: str) -> int:
        raise RuntimeError(key)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"password": "s3cr3t", "user": "joe"}, {"password": REDACTED, "user": "joe"}),
        ({"a": [{"b": ({"apiKey": 1},)}]}, {"a": [{"b": [{"apiKey": REDACTED}]}]}),
        ({"secret": {"a": "s3cr3t"}, "token": None}, {"secret": REDACTED, "token": REDACTED}),
        ({"password": ""}, {"password": ""}),
        ({"code": 42, "key": "k", "state": "s"}, {"code": 42, "key": "k", "state": "s"}),
        ({"u": "https://u:s3cr3t@h/"}, {"u": "https://h/"}),
        ({"j": '{"pin":"s3cr3t"}'}, {"j": '{"pin":"[REDACTED]"}'}),
        ({"j": '["{\\"pin\\":\\"s3cr3t\\"}"]'}, {"j": '["{\\"pin\\":\\"[REDACTED]\\"}"]'}),
        ({b"password": "s3cr3t", ("password",): "s3cr3t", 7: "ok"},
         {b"password": REDACTED, ("password",): REDACTED, 7: "ok"}),
        ({"b": b"token=s3cr3t", "c": b"\xfftoken=s3cr3t", "d": b"\xff"},
         {"b": "token=[REDACTED]", "c": "\xfftoken=[REDACTED]", "d": b"\xff"}),
        (Credentials("joe", "s3cr3t"), {"user": "joe", "password": REDACTED}),
        ([Login("joe", "s3cr3t")], [{"user": "joe", "api_key": REDACTED}]),
        (Word.SECRET, "https://h/"),
        (Text("token=s3cr3t"), "token=[REDACTED]"),
        ({"x": Hostile()}, {"x": REDACTED}),
        ("a\0b", "a\ufffdb"),
        ({"s": {"a"}}, {"s": ["a"]}),
        (1.5, 1.5),
        (None, None),
    ],
    ids=repr,
)  # fmt: skip
def test_json_hides_named_fields_at_any_depth(value: object, expected: object) -> None:
    """Whatever the sink would turn into JSON is looked into."""
    assert ALL.json(value) == expected


def test_json_never_changes_its_input() -> None:
    """The value is the application's."""
    inner = {"password": "s3cr3t"}
    value = {"a": [inner], "b": inner}
    ALL.json(value)
    assert value == {"a": [{"password": "s3cr3t"}], "b": {"password": "s3cr3t"}}


def test_json_ends_on_circles_depth_and_endless_sequences() -> None:
    """What lies beyond the bounds is hidden, not shown."""
    circle: list[Any] = []
    circle.extend([circle, circle])
    deep: Any = "s3cr3t"
    for _ in range(100_000):
        deep = [deep]
    assert REDACTED in str(ALL.json(circle))
    assert "s3cr3t" not in str(ALL.json(deep))
    assert len(ALL.json(Endless())) <= 20_000
    assert len(ALL.json(list(range(100_000)))) <= 20_000


def test_json_does_not_consume_iterators() -> None:
    """A generator belongs to the application; so do objects of unknown kind."""
    generator = iter([1])
    thing = object()
    assert ALL.json({"g": generator, "t": thing}) == {"g": generator, "t": thing}
    assert next(generator) == 1


# Keyed hashes


def test_key_hides_by_hash() -> None:
    """The same value is found again, wherever and however it was written."""
    redactor = Redactor(headers=["authorization", "cookie"], key=KEY, key_id="k2")
    expected = redactor.hash_value("päss wörd")
    assert expected.startswith("hmac-sha256:k2:")
    assert redactor.headers([(b"authorization", b"Bearer " + "päss wörd".encode())]) == {
        "authorization": [f"Bearer {expected}"]
    }
    assert redactor.headers([(b"cookie", "a=päss wörd".encode())]) == {"cookie": [f"a={expected}"]}
    assert redactor.target(b"/", b"pin=p%C3%A4ss+w%C3%B6rd&x=1") == f"/?pin={expected}&x=1"
    assert redactor.form("pin=päss wörd".encode()) == f"pin={expected}"
    assert redactor.json({"pin": "päss wörd"}) == {"pin": expected}
    assert redactor.text('pin: "päss wörd"') == f'pin: "{expected}"'


def test_hash_tells_types_apart() -> None:
    """1, "1", true and 1.0 are four values; the order of keys is none."""
    hash_value = Mask(KEY).hash
    values: list[object] = [1, "1", True, 1.0, None, "null", [1], {"a": 1}, "", [], {}]
    assert len({hash_value(value) for value in values}) == len(values)
    assert hash_value({"a": 1, "b": 2}) == hash_value({"b": 2, "a": 1})


def test_hash_can_be_recomputed_by_anyone_with_the_key() -> None:
    """By `printf '"s3cr3t"' | openssl dgst -sha256 -hmac 0123456789abcdef`."""
    assert Mask(KEY).hash("s3cr3t") == (
        "hmac-sha256:1:169f7551f4013e0c51a12bad650899fc69c955980cbd245c773a677f4b2b0101"
    )


def test_unhashable_values_are_redacted() -> None:
    """Without a canonical text there is no hash; the value stays hidden."""
    mask = Mask(KEY)
    assert [mask(value) for value in (object(), 2**70, "\ud800", {1: {2}})] == [REDACTED] * 4


def test_masks_are_not_hashed_again() -> None:
    """Redacting what is redacted changes nothing."""
    redactor = Redactor(headers=[], key=KEY)
    once = redactor.text('token="s3cr3t" https://h/?token=s3cr3t')
    assert redactor.text(once) == once


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key": "short"}, "at least 16"),
        ({"key": KEY, "key_id": "a:b"}, "redact_key_id"),
        ({"key": KEY, "key_id": ""}, "redact_key_id"),
        ({"fields": [" "]}, "no letter or digit"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    """A guessable key is worse than none: it looks safe."""
    with pytest.raises(SettingsError, match=message):
        Redactor(headers=[], **settings)


def test_hashing_needs_a_key() -> None:
    """A search without a key would find nothing, silently."""
    with pytest.raises(SettingsError, match="AUDITLOG_REDACT_KEY"):
        ALL.hash_value("x")
