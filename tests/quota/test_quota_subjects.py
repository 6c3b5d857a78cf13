"""Whose usage is added up: texts that differ where the subjects do, and tell no secrets."""

import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from auditlog import Settings
from auditlog.capture.redaction.keyed_hash import Mask
from auditlog.quota.counting.subjects import (
    EVERYBODY,
    MAX_SUBJECT_BYTES,
    fitting,
    named,
    subject_of,
    tenant_of,
)
from auditlog.quota.model import Per

SETTINGS = Settings()
KEYED = Settings(redact_key="k" * 16, redact_key_id="7")
TENANT, ORGANISATION, USER, KEY, ROUTE, ADDRESS = Per
TEXTS = st.text(max_size=300)


def of(per: Per, value: str | None, settings: Settings = SETTINGS) -> str | None:
    """The subject of a quota per one thing."""
    return subject_of((per,), {per: value}, settings)


def test_all_of_a_tenant_is_one() -> None:
    """Whoever it is."""
    assert subject_of((TENANT,), {USER: "7"}, SETTINGS) == EVERYBODY == ""


def test_parts_are_joined_in_one_order() -> None:
    """A definition that names them in another order does not begin anew."""
    parts = {USER: "a&b=c", ROUTE: "/exports/*", ORGANISATION: "42"}

    assert subject_of((ROUTE, TENANT, USER), parts, SETTINGS) == "user=a%26b%3Dc&route=/exports/*"
    assert subject_of((USER, ROUTE), parts, SETTINGS) == "user=a%26b%3Dc&route=/exports/*"
    assert subject_of((ORGANISATION,), parts, SETTINGS) == "organisation=42"


@pytest.mark.parametrize("missing", [None, ""])
def test_subject_that_is_not_known_is_none(missing: str | None) -> None:
    """No counter for all those of whom nothing is known."""
    assert of(USER, missing) is None
    assert subject_of((USER, ROUTE), {ROUTE: "/a", USER: missing}, SETTINGS) is None


@given(one=st.tuples(TEXTS, TEXTS), other=st.tuples(TEXTS, TEXTS))
@example(("a&route=b", "c"), ("a", "b&route=c"))
@example(("%26", "x"), ("&", "x"))
@example(("\ud800", "x"), ("\udc00", "x"))
@example(("a" * 300, "x"), ("a" * 299, "ax"))
def test_different_subjects_have_different_texts(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    """Printable ones of a length that fits into a key, whatever a client writes."""
    texts = [
        subject_of((USER, ROUTE), {USER: user, ROUTE: route}, SETTINGS)
        for user, route in (one, other)
    ]

    for text, parts in zip(texts, (one, other), strict=True):
        assert (text is None) == (not all(parts))
        assert text is None or re.fullmatch(f"[!-~]{{1,{MAX_SUBJECT_BYTES}}}", text)
    if one != other and None not in texts:
        assert texts[0] != texts[1]


def test_key_is_not_stored() -> None:
    """Its SHA-256 is; with a key of the trail's, what is searched for there."""
    digest = hashlib.sha256(b"s3cret").hexdigest()

    assert of(KEY, "s3cret") == f"key=sha256:{digest}"
    assert of(KEY, "s3cret", KEYED) == f"key={Mask('k' * 16, '7').hash_bytes(b's3cret')}"
    assert of(KEY, "\ud800", KEYED) is not None


@pytest.mark.parametrize(
    ("address", "subject"),
    [
        ("192.0.2.7", "address=192.0.2.7"),
        ("2001:db8:1:2:aaaa:bbbb:cccc:dddd", "address=2001:db8:1:2::/64"),
        ("fe80::1%eth0", "address=fe80::/64"),
        ("::ffff:192.0.2.7", "address=192.0.2.7"),
        ("testclient", "address=testclient"),
        ("no:address", "address=no:address"),
    ],
)
def test_address_is_that_of_a_client(address: str, subject: str) -> None:
    """Of IPv6 the network, for each client has one."""
    assert of(ADDRESS, address) == subject


def test_tenant_is_spelled_as_in_the_trail() -> None:
    """What comes from a client may be anything; what the database refuses is replaced."""
    assert tenant_of(None, SETTINGS) == tenant_of("", SETTINGS) == "default"
    assert tenant_of("acme", SETTINGS) == "acme"
    assert tenant_of("a\0b\ud800", SETTINGS) == "a\ufffdb\ufffd"
    assert len(fitting("é" * 500).encode()) <= 255


def test_subject_that_an_application_names_fits() -> None:
    """Whatever it is."""
    assert named("report 7") == "report%207"
    assert named("x" * 300).startswith("sha256:")
