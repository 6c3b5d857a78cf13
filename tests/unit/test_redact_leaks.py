"""Properties of the redactor: whatever surrounds a secret, it does not come out."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from auditlog.capture.redaction.redactor import Redactor
from auditlog.capture.redaction.secret_names import INFIXES, PARAMETER_NAMES, WHOLE_NAMES

BAIT = "s3cr3tBa1t"
PLAIN = Redactor(headers=["*"])
KEYED = Redactor(headers=["*"], key="0123456789abcdef")

names = st.sampled_from([*INFIXES, *WHOLE_NAMES])
parameter_names = st.sampled_from([*INFIXES, *WHOLE_NAMES, *PARAMETER_NAMES])
redactors = st.sampled_from([PLAIN, KEYED])
spellings = st.sampled_from(
    [str, str.upper, str.title, lambda n: f"x-{n}", lambda n: f"user[{n}]", lambda n: f"a.{n}"]
)
encodings = st.sampled_from(
    [
        str,
        quote,
        lambda text: quote(quote(text, safe=""), safe=""),
        lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    ]
)
noise = st.text("ab1&=;?#%/:@+.[]{}\"' \\,", max_size=20)
wrappings = st.sampled_from(
    ["{}", "a%26{}", "a%3D%26{}", "x{}", "{}y", '"{}"', "{} {}", "{}/{}", "{}={}", "{};{}", "a{}=="]
)


def wrapped(wrapping: str) -> str:
    return wrapping.replace("{}", BAIT)


@given(redactors, parameter_names, spellings, encodings, encodings, noise, noise, wrappings)
@example(PLAIN, "password", str, str, str, "", ";x=1", "{};{}")
def test_no_secret_parameter_in_a_target(  # noqa: PLR0917  # hypothesis fills them
    redactor: Redactor,
    name: str,
    spell: Any,
    encode_name: Any,
    encode: Any,
    before: str,
    after: str,
    wrapping: str,
) -> None:
    """Name and value in every encoding, anything before and behind."""
    value = encode(wrapped(wrapping))
    query = f"{before}&{encode_name(spell(name))}={value}&{after}"
    assert BAIT not in redactor.target(b"/p", query.encode())
    assert BAIT not in redactor.form(query.encode())
    assert BAIT not in redactor.url("https://example.org/p?" + query)
    assert BAIT not in redactor.url("/p#" + query)


@given(redactors, parameter_names, spellings, st.integers(1, 3), st.integers(0, 3))
def test_no_secret_parameter_of_a_url_within_a_url(
    redactor: Redactor, name: str, spell: Any, depth: int, encoded: int
) -> None:
    """Redirects carry URLs in URLs in URLs."""
    url = f"https://joe:{BAIT}@example.org/cb?{spell(name)}={BAIT}"
    for _ in range(depth):
        inner = url
        for _ in range(encoded):
            inner = quote(inner, safe="")
        url = f"https://example.org/?page=1&next={inner}"
    assert BAIT not in redactor.url(url)
    assert BAIT not in redactor.target(b"/", url.partition("?")[2].encode())
    assert BAIT not in str(redactor.json({"message": f"went to {url} today"}))


@given(redactors, st.text("ab:@%/?#&;=[]\\", max_size=8), st.sampled_from(["http", "redis", ""]))
def test_no_password_of_a_url(redactor: Redactor, noise: str, scheme: str) -> None:
    """Passwords with every character that ends an authority, or seems to."""
    start = f"{scheme}://" if scheme else "//"
    url = f"{start}joe:x{BAIT}{noise}@example.org/path"
    assert BAIT not in redactor.url(url)
    assert BAIT not in redactor.target(url.encode(), b"")
    assert BAIT not in redactor.target(b"/p", b"next=" + quote(url, safe="").encode())


values = st.recursive(
    st.sampled_from([BAIT, f"x {BAIT}", [BAIT], {"a": BAIT}, {BAIT: 1}, f'{{"a": "{BAIT}"}}']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("k"), inner),
    max_leaves=4,
)
harmless = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(redactors, names, spellings, values, harmless, st.integers(0, 5))
def test_no_secret_field_in_json(  # noqa: PLR0917  # hypothesis fills them
    redactor: Redactor, name: str, spell: Any, value: Any, other: Any, depth: int
) -> None:
    """At any depth, beside anything, as an object or as a text of one."""
    document: Any = {"other": other, spell(name): value}
    for level in range(depth):
        document = [document] if level % 2 else {"a": document, "b": other}
    assert BAIT not in repr(redactor.json(document))
    text = json.dumps({"a": {spell(name): value}})
    assert BAIT not in repr(redactor.json({"payload": text}))
    assert BAIT not in redactor.target(b"/", b"variables=" + quote(text).encode())
    assert BAIT not in redactor.text(f"received {text} and more")


@given(redactors, names, spellings, st.text("ab ;,=\"'", max_size=10), wrappings)
@settings(suppress_health_check=[HealthCheck.filter_too_much])
def test_no_secret_header(
    redactor: Redactor, name: str, spell: Any, before: str, wrapping: str
) -> None:
    """Under every secret name, whatever the value looks like; cookies keep their names."""
    value = (before + wrapped(wrapping)).encode()
    if name == "cookie":
        # A cookie's name is shown, so the bait must not stand in one.
        value = b"session=" + BAIT.encode()
    for prefix in (b"", b"Bearer ", b"Basic "):
        raw = [(spell(name).encode(), prefix + value)]
        if name != "cookie" or not prefix:
            assert BAIT not in repr(redactor.headers(raw))


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=60)), max_size=5))
def test_headers_survive_all_bytes(raw: list[tuple[bytes, bytes]]) -> None:
    """Never an error, always lists of texts, one for every line."""
    for redactor in (PLAIN, KEYED):
        headers = redactor.headers(raw)
        assert sum(map(len, headers.values())) == len(raw)
        assert all(type(value) is str for values in headers.values() for value in values)


@given(st.binary(max_size=60), st.binary(max_size=120))
def test_targets_survive_all_bytes(path: bytes, query: bytes) -> None:
    """Never an error, always printable ASCII."""
    for redactor in (PLAIN, KEYED):
        for text in (redactor.target(path, query), redactor.form(query)):
            assert text.isascii()
            assert not text or text.isprintable()


@given(st.text(max_size=100), harmless)
def test_texts_and_values_survive(text: str, value: Any) -> None:
    """Never an error; harmless values come back equal."""
    for redactor in (PLAIN, KEYED):
        assert type(redactor.text(text)) is type(redactor.url(text)) is str
        redactor.json({text: value})


@pytest.mark.parametrize("redactor", [PLAIN, KEYED])
@given(noise, noise)
def test_redacting_twice_changes_nothing(redactor: Redactor, before: str, after: str) -> None:
    """A mask is not a secret."""
    once = redactor.text(f"{before} password={BAIT} {after}")
    assert redactor.text(once).count("sha256") == once.count("sha256")
