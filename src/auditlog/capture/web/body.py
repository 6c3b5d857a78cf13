"""Bodies: the beginning of what flows by, and what of it may be stored.

A tee keeps a bounded prefix and counts the rest; it delays and changes nothing. `describe` turns
it into metadata when the request is over. Only bodies whose secrets can be found are shown: JSON,
forms and, if a rule lists it, plain text. All else is `omitted`, with the reason. Never raises.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeAlias

import orjson

from auditlog.capture.policy.media_types import (
    Kind,
    is_listed,
    is_readable_charset,
    kind_of,
    media_type,
)
from auditlog.capture.policy.rules import Rule
from auditlog.capture.redaction.redactor import Redactor
from auditlog.capture.web.json_prefix import repair

_SPACES = (b" ", b"\t", b"\r", b"\n")

# The content, or why there is none; and whether it shows all that the body says.
_Content: TypeAlias = tuple[Any, str | None, bool]


class BodyTee:
    """Keeps at most `max_bytes` of a body, counts all of it.

    Set `incomplete` where the body ended before its end: the client hung up, or the application
    read no further.
    """

    __slots__ = ("_kept", "_room", "incomplete", "total")

    def __init__(self, max_bytes: int) -> None:
        self._kept = bytearray()
        self._room = max_bytes
        self.total = 0
        self.incomplete = False

    def feed(self, chunk: bytes) -> None:
        """Take the next part."""
        self.total += len(chunk)
        if self._room > 0:
            part = chunk[: self._room]
            self._kept += part
            self._room -= len(part)

    @property
    def truncated(self) -> bool:
        """Was there more than is kept?"""
        return self.total > len(self._kept)

    @property
    def whole(self) -> bool:
        """Is all of the body here?"""
        return not (self.truncated or self.incomplete)

    def kept(self) -> bytes:
        """Return what is kept."""
        return bytes(self._kept)


def describe(
    tee: BodyTee,
    content_type: str | None,
    content_encoding: str | None,
    rule: Rule,
    redactor: Redactor,
) -> dict[str, Any] | None:
    """Return what is stored of a body: the redacted content, or why it is omitted.

    None if there was no body. `sha256` stands only beside content that hides nothing, for it
    would let a hidden password be guessed; with a key there is `hmac` instead.
    """
    if not tee.total:
        return None
    described: dict[str, Any] = {"bytes": tee.total, "truncated": tee.truncated}
    if tee.incomplete:
        described["incomplete"] = True
    try:
        content, omitted, clear = _content(tee, content_type, content_encoding, rule, redactor)
    except Exception:  # noqa: BLE001  # what cannot be judged is left out
        content, omitted, clear = None, "error", False
    described.update({"omitted": omitted} if omitted else {"content": content})
    if tee.whole:
        described.update(_digest(tee.kept(), clear, redactor))
    return described


def _content(
    tee: BodyTee,
    content_type: str | None,
    content_encoding: str | None,
    rule: Rule,
    redactor: Redactor,
) -> _Content:
    media = media_type(content_type)
    kind = kind_of(media)
    if content_encoding and content_encoding.strip().lower() != "identity":
        return None, "compressed", False
    if kind is None or not is_listed(media, rule.body_types):
        return None, "content_type", False
    if not is_readable_charset(content_type or ""):
        return None, "charset", False
    return _READERS[kind](tee, redactor)


def _read_json(tee: BodyTee, redactor: Redactor) -> _Content:
    data: bytes | None = tee.kept().removeprefix(b"\xef\xbb\xbf")
    if not tee.whole:
        data = repair(data or b"")
    if data is None:
        return None, "cut_off", False
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None, "malformed", False
    if not isinstance(document, dict | list):
        # A bare value has no name by which it could be judged.
        return None, "no_names", False
    redacted = redactor.json(document)
    if not tee.whole or redacted != document:
        return redacted, None, False
    return redacted, None, _has_distinct_keys(data)


def _read_form(tee: BodyTee, redactor: Redactor) -> _Content:
    data = tee.kept()
    if not tee.whole:
        # What was cut is given up: user and password of a URL, without the @ that tells them.
        data = data[: data.rfind(b"&") + 1]
    if b"=" not in data:
        return None, "no_names" if tee.whole else "cut_off", False
    redacted = redactor.form(data)
    return redacted, None, redacted.encode() == data


def _read_text(tee: BodyTee, redactor: Redactor) -> _Content:
    data = tee.kept()
    if not tee.whole:
        # Up to the last space, for the same reason.
        data = data[: max(map(data.rfind, _SPACES)) + 1]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None, "binary", False
    if not text:
        return None, "cut_off", False
    if "\0" in text:
        return None, "binary", False
    redacted = redactor.text(text)
    return redacted, None, redacted == text


def _has_distinct_keys(data: bytes) -> bool:
    """Of two equal keys the parser shows the last; the other may be what is to be hidden."""
    try:
        json.loads(data, object_pairs_hook=_refuse_equal_keys)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse_equal_keys(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("equal keys")


def _digest(data: bytes, clear: bool, redactor: Redactor) -> dict[str, str]:
    if clear:
        return {"sha256": hashlib.sha256(data).hexdigest()}
    return {"hmac": redactor.mask.hash_bytes(data)} if redactor.mask.keyed else {}


_READERS: dict[Kind, Callable[[BodyTee, Redactor], _Content]] = {
    "json": _read_json,
    "form": _read_form,
    "text": _read_text,
}
