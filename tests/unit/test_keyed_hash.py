"""Hashes in the place of secrets: searchable, not readable."""

from typing import Any

import pytest

from auditlog.capture.redaction.keyed_hash import REDACTED, Mask
from auditlog.capture.redaction.redactor import Redactor
from auditlog.errors import SettingsError

KEY = "0123456789abcdef"


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
        Redactor(headers=[]).hash_value("x")
