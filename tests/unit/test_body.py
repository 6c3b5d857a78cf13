"""What is kept of bodies, and what of that is shown."""

import json
from hashlib import sha256
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditlog.capture.policy import Level, Rule
from auditlog.capture.redaction.redactor import Redactor
from auditlog.capture.web.body import BodyTee, describe
from auditlog.capture.web.json_prefix import repair

RULE = Rule(name="bodies", level=Level.BODY)
ANY_TEXT = Rule(name="texts", level=Level.BODY, body_types=("*/*",))
REDACTOR = Redactor(headers=[])
KEYED = Redactor(headers=[], key="0123456789abcdef")
BAIT = "s3cr3tBa1t"


def tee_of(data: bytes, max_bytes: int = 10_000, *, incomplete: bool = False) -> BodyTee:
    tee = BodyTee(max_bytes)
    tee.feed(data)
    tee.incomplete = incomplete
    return tee


def described(data: bytes, content_type: str | None = "application/json", **tee: Any) -> Any:
    return describe(tee_of(data, **tee), content_type, None, ANY_TEXT, REDACTOR)


# The tee


def test_tee_keeps_a_prefix_and_counts_all() -> None:
    """Memory is bounded by the limit, whatever flows by."""
    tee = BodyTee(5)
    for chunk in (b"abc", b"", b"defg", b"x" * 1_000_000):
        tee.feed(chunk)
    assert (tee.kept(), tee.total, tee.truncated, tee.whole) == (b"abcde", 1_000_007, True, False)


def test_tee_of_a_body_that_fits() -> None:
    """Exactly the limit is not too much."""
    tee = tee_of(b"abcde", 5)
    assert (tee.kept(), tee.truncated, tee.whole) == (b"abcde", False, True)


def test_tee_copies_what_may_change() -> None:
    """Applications reuse their buffers."""
    buffer = bytearray(b"abc")
    tee = BodyTee(10)
    tee.feed(buffer)
    tee.feed(memoryview(b"def"))
    buffer[:] = b"xyz"
    assert tee.kept() == b"abcdef"


def test_tee_that_keeps_nothing_still_counts() -> None:
    """A limit of 0 is a limit."""
    tee = tee_of(b"abc", 0)
    assert (tee.kept(), tee.total, tee.truncated) == (b"", 3, True)


# What is shown


def test_no_body_is_no_description() -> None:
    """A GET has none, and metadata stays small."""
    assert described(b"") is None


def test_json_is_stored_as_json_with_its_hash() -> None:
    """What hides nothing can be verified."""
    data = b'{"a": [1, "x", null]}'
    assert described(data) == {
        "bytes": len(data),
        "truncated": False,
        "content": {"a": [1, "x", None]},
        "sha256": sha256(data).hexdigest(),
    }


def test_hidden_content_has_no_guessable_hash() -> None:
    """With a plain hash of the body, a hidden PIN is found in ten thousand tries."""
    data = b'{"pin": "1234"}'
    assert described(data) == {"bytes": 15, "truncated": False, "content": {"pin": "[REDACTED]"}}
    keyed = describe(tee_of(data), "application/json", None, RULE, KEYED)
    assert keyed is not None
    assert keyed["hmac"].startswith("hmac-sha256:1:")
    assert keyed["hmac"] != keyed["content"]["pin"]


def test_large_json_that_hides_nothing_has_its_hash() -> None:
    """However many names it has."""
    data = orjson.dumps([{"id": number, "name": "x"} for number in range(2_000)])
    assert "sha256" in described(data, max_bytes=100_000)


def test_key_that_comes_twice_hides_nothing_behind_itself() -> None:
    """The parser shows the last of them; the hash must not give the others away."""
    result = described(b'{"x": {"password": "1234"}, "x": 1}')
    assert result["content"] == {"x": 1}
    assert "sha256" not in result


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=UTF-8", "application/problem+json", "a/x+json"],
)
def test_json_types(content_type: str) -> None:
    """Parameters and case do not matter."""
    assert described(b'{"a":1}', content_type)["content"] == {"a": 1}


def test_form_is_stored_redacted() -> None:
    """As the text it is."""
    result = described(b"user=joe&password=s3cr3t", "application/x-www-form-urlencoded")
    assert result["content"] == "user=joe&password=[REDACTED]"


@pytest.mark.parametrize("content_type", ["text/plain", "application/graphql"])
def test_text_is_stored_as_well_as_it_can_be_redacted(content_type: str) -> None:
    """Only if a rule lists it."""
    data = b'{ login(password: "s3cr3t") }'
    result = described(data, content_type)
    assert result["content"] == '{ login(password: "[REDACTED]") }'
    assert describe(tee_of(data), content_type, None, RULE, REDACTOR) == {
        "bytes": 29,
        "truncated": False,
        "omitted": "content_type",
    }


@pytest.mark.parametrize(
    ("data", "content_type", "encoding", "reason"),
    [
        (b"{}", None, None, "content_type"),
        (b"{}", "", None, "content_type"),
        (b"x", "image/png", None, "content_type"),
        (b"<password>x</password>", "application/xml", None, "content_type"),
        (b"user,password\njoe,x", "text/csv", None, "content_type"),
        (b"--x", "multipart/form-data; boundary=x", None, "content_type"),
        (b"data: x", "text/event-stream", None, "content_type"),
        (b"{}", "application/json", "gzip", "compressed"),
        (b"{}", "application/json", "gzip, identity", "compressed"),
        (b"{}", "application/json; charset=utf-16", None, "charset"),
        (b"a=1", "application/x-www-form-urlencoded; charset=utf-7", None, "charset"),
        (b'{"a":', "application/json", None, "malformed"),
        (b'{"a":"\xff"}', "application/json", None, "malformed"),
        (b'{"a":"\\ud800"}', "application/json", None, "malformed"),
        (b'{"a":NaN}', "application/json", None, "malformed"),
        (b'{"a":1e999}', "application/json", None, "malformed"),
        (b'{"a":%s}' % (b"1" * 5000), "application/json", None, "malformed"),
        (b"[" * 5000 + b"]" * 5000, "application/json", None, "malformed"),
        ("{}".encode("utf-16"), "application/json", None, "malformed"),
        (b'"s3cr3t"', "application/json", None, "no_names"),
        (b"12345", "application/json", None, "no_names"),
        (b"s3cr3t", "application/x-www-form-urlencoded", None, "no_names"),
        (b"a\0b", "text/plain", None, "binary"),
        (b"\xff", "text/plain", None, "binary"),
    ],
)
def test_what_cannot_be_redacted_is_omitted(
    data: bytes, content_type: str | None, encoding: str | None, reason: str
) -> None:
    """With the reason, the size, and nothing else."""
    result = describe(tee_of(data, 20_000), content_type, encoding, ANY_TEXT, REDACTOR)
    assert result == {"bytes": len(data), "truncated": False, "omitted": reason}


def test_identity_is_no_compression() -> None:
    """RFC 9110, 12.5.3."""
    assert "content" in (
        describe(tee_of(b"{}"), "application/json", "Identity", RULE, REDACTOR) or {}
    )


def test_nul_and_depth_are_made_fit_for_jsonb() -> None:
    """SQLSTATE 22P05 and 54001 are not for the database to find."""
    assert described(b'{"a":"x\\u0000y"}')["content"] == {"a": "x\ufffdy"}
    deep = described(b'{"a":' * 200 + b"1" + b"}" * 200)
    assert "[REDACTED]" in json.dumps(deep["content"])


def test_byte_order_mark_is_no_error() -> None:
    """Editors and .NET write one."""
    assert described(b'\xef\xbb\xbf{"a":1}')["content"] == {"a": 1}


def test_truncated_json_is_shown_as_far_as_it_goes() -> None:
    """Redacted by its names like a whole one; there is no hash of what was not seen."""
    data = b'{"a":1,"password":"s3cr3t","b":[1,2,3],"c":"long'
    result = described(data + b"x" * 100, max_bytes=len(data))
    assert result == {
        "bytes": len(data) + 100,
        "truncated": True,
        "content": {"a": 1, "password": "[REDACTED]", "b": [1, 2, 3]},
    }


def test_body_that_broke_off_is_marked() -> None:
    """The client hung up, or the application read no further."""
    result = described(b'{"a":[1,2', incomplete=True)
    assert result == {
        "bytes": 9,
        "truncated": False,
        "incomplete": True,
        "content": {"a": [1]},
    }


@pytest.mark.parametrize("data", [b'"long text', b"123", b"", b"x"])
def test_prefix_in_which_nothing_is_certain_is_omitted(data: bytes) -> None:
    """Half a number is another number."""
    assert described(data + b"9" * 10, max_bytes=len(data))["omitted"] == "cut_off"


def test_truncated_text_and_form_are_redacted() -> None:
    """A cut may go through a character, or through a secret."""
    text = "ok password: s3cr3t see\thttps://u:s3cr3t\xfc@h".encode()
    assert described(text, "text/plain", max_bytes=len(text) - 3)["content"] == (
        "ok password: [REDACTED] see\t"
    )
    form = b"a=1&password=s3cr3t&next=https://u:s3cr3t"
    content_type = "application/x-www-form-urlencoded"
    assert described(form + b"@h", content_type, max_bytes=len(form))["content"] == (
        "a=1&password=[REDACTED]&"
    )


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_text_without_a_place_to_cut_is_omitted(content_type: str) -> None:
    """One long word shows nothing that is certain."""
    assert described(b"next=https://u:s3cr3t@h", content_type, max_bytes=20)["omitted"] == "cut_off"


def test_error_while_redacting_hides_the_body() -> None:
    """The row is there, the body is not."""

    class Broken(Redactor):
        def json(self, value: object) -> Any:
            raise RuntimeError("s3cr3t")

    broken = Broken(headers=[])
    assert describe(tee_of(b"{}"), "application/json", None, RULE, broken) == {
        "bytes": 2,
        "truncated": False,
        "omitted": "error",
    }


# Properties

documents = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9**20) | st.floats(allow_nan=False)
    | st.text(max_size=8) | st.sampled_from(['"', "\\", "{", "},", '","']),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: isinstance(value, list | dict))  # fmt: skip


@given(documents, st.data())
def test_every_prefix_is_repaired_or_given_up(document: Any, data: st.DataObject) -> None:
    """The result is JSON, and says nothing that the document does not say."""
    text = orjson.dumps(document) if data.draw(st.booleans()) else json.dumps(document).encode()
    prefix = text[: data.draw(st.integers(0, len(text)))]
    repaired = repair(prefix)
    if repaired is None:
        assert not prefix
    else:
        assert _is_part_of(json.loads(repaired), json.loads(text))


def _is_part_of(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and _is_part_of(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list):
        pairs = zip(part, whole, strict=False) if isinstance(whole, list) else iter(())
        return len(part) <= len(whole) and all(_is_part_of(*pair) for pair in pairs)
    return bool(part == whole)


@given(st.text('{}[],:"\\ab1 ', max_size=40))
def test_repair_survives_what_is_no_json(text: str) -> None:
    """Never an error; nobody promises JSON for what was none."""
    repaired = repair(text.encode())
    assert repaired is None or isinstance(repaired, bytes)


bodies = st.sampled_from(
    [
        {"password": BAIT, "a": 1},
        {"user": {"apiKey": BAIT, "tags": [1, 2]}},
        [{"token": {"a": [BAIT, BAIT]}}, 1],
        {"a": json.dumps({"secret": BAIT}), "b": f"https://u:{BAIT}@h/?code={BAIT}"},
    ]
)


@given(bodies, st.integers(0, 120), st.sampled_from([REDACTOR, KEYED]), st.booleans())
def test_no_prefix_of_a_body_shows_a_secret(
    body: Any, max_bytes: int, redactor: Redactor, incomplete: bool
) -> None:
    """Wherever the cut goes through."""
    data = json.dumps(body).encode()
    tee = tee_of(data[:max_bytes] if incomplete else data, max_bytes, incomplete=incomplete)
    for content_type in ("application/json", "text/plain"):
        result = describe(tee, content_type, None, ANY_TEXT, redactor)
        assert BAIT[:6] not in repr(result)


content_types = st.sampled_from(
    ["application/json", "text/plain", "application/x-www-form-urlencoded", "x", None]
)


@given(st.binary(max_size=80), content_types, st.integers(0, 80))
def test_describe_survives_all_bytes(data: bytes, content_type: str | None, limit: int) -> None:
    """Never an error, always fit for jsonb."""
    result = describe(tee_of(data, limit), content_type, None, ANY_TEXT, REDACTOR)
    assert (result is None) == (not data)
    assert b"\\u0000" not in orjson.dumps(result).replace(b"\\\\", b"")
