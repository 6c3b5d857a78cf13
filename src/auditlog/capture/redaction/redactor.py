"""The one door through which everything that a client sent passes before it becomes a record.

Takes raw headers, targets, bodies and values, gives back what may be stored: secrets of the
built-in names and of the user's are replaced by `[REDACTED]`, or by a keyed hash. Never raises
and never changes its input; what cannot be judged is hidden. Secrets that no name gives away
(in a path segment, under an innocent name) are not found.
"""

import re
from collections.abc import Iterable
from typing import Any, Self
from urllib.parse import quote

from auditlog.capture.redaction.headers import HeaderPlan
from auditlog.capture.redaction.json_values import JsonRedactor
from auditlog.capture.redaction.keyed_hash import REDACTED, Mask
from auditlog.capture.redaction.secret_names import OAUTH, SECRET, STATE, SecretNames
from auditlog.capture.redaction.text import TextRedactor
from auditlog.settings import Settings

_HARMLESS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/+,!$'()*"
_PRINTABLE = bytes(range(0x21, 0x7F))
_CREDENTIALS = re.compile(rb"(?i:bearer|basic)(?:\+|%20)")
# Beyond this the careful way has its own bound.
_MANY = 100
_HIDES_STATE = STATE | OAUTH


class Redactor:
    """Hides secrets; built once, shared by all requests and threads.

    Args:
        headers: Names of headers to keep, `"*"` for all.
        fields: Names to hide in headers, query strings and JSON, beside the built-in ones.
        key: At least 16 bytes: hide by keyed hash instead of `[REDACTED]`.
        key_id: Stored with every hash, to tell keys apart after a rotation.

    Raises:
        SettingsError: a key or a name that cannot work.
    """

    def __init__(
        self,
        *,
        headers: Iterable[str],
        fields: Iterable[str] = (),
        key: str | None = None,
        key_id: str = "1",
    ) -> None:
        names = SecretNames(fields)
        self.mask = Mask(key, key_id)
        # The two need each other: a text may be a JSON document, whose texts may be URLs.
        self._text = TextRedactor(names, self.mask, self._redact_json)
        self._json = JsonRedactor(names, self.mask, self._text.text)
        self._plan = HeaderPlan(headers, names, self.mask, self._text.url)
        self._verdicts = names.parameters

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Build the redactor that the settings describe.

        Raises:
            SettingsError: a key or a name that cannot work.
        """
        return cls(
            headers=settings.capture_headers,
            fields=settings.redact_fields,
            key=settings.redact_key,
            key_id=settings.redact_key_id,
        )

    def headers(self, raw: Iterable[tuple[bytes, bytes]]) -> dict[str, list[str]]:
        """Return lower-case name → values, order and duplicates kept."""
        plan = self._plan
        kept: dict[str, list[str]] = {}
        for name, value in raw:
            entry = plan[name]
            if entry is None:
                continue
            key, show = entry
            try:
                text = value.decode("latin-1") if show is None else show(value.decode("latin-1"))
            except Exception:  # noqa: BLE001  # what cannot be judged is hidden
                text = REDACTED
            if key in kept:
                kept[key].append(text)
            else:
                kept[key] = [text]
        return kept

    def target(self, path: bytes, query: bytes) -> str:
        """Return path and query as they were sent, in printable ASCII.

        Other bytes become percent-encoded; what is percent-encoded stays so.
        """
        try:
            if not path.translate(None, _HARMLESS):
                if not query:
                    return path.decode("ascii")
                if not query.translate(None, _HARMLESS_QUERY) and self._is_plain(query):
                    return f"{path.decode('ascii')}?{query.decode('ascii')}"
            raw = path + b"?" + query if query else path
            return _printable(self._text.url(raw.decode("utf-8", "surrogateescape")))
        except Exception:  # noqa: BLE001  # what cannot be judged is hidden
            return REDACTED

    def subprotocol(self, text: str) -> str:
        """Return a WebSocket's subprotocol, unless it is a token that a browser sends as one."""
        return self._plan.subprotocol(text)

    def url(self, text: str) -> str:
        """Return a URL, absolute or relative, without userinfo and secret parameters."""
        try:
            return self._text.url(text)
        except Exception:  # noqa: BLE001  # what cannot be judged is hidden
            return REDACTED

    def text(self, text: str) -> str:
        """Return free text without the URLs' secrets, assignments and credentials in it.

        The best that names and patterns can do: prose may hold secrets in other ways.
        """
        try:
            return self._text.text(text)
        except Exception:  # noqa: BLE001  # what cannot be judged is hidden
            return REDACTED

    def json(self, value: object) -> Any:
        """Return a copy in which nothing under a secret name, at any depth, is shown."""
        try:
            return self._json.redact(value)
        except Exception:  # noqa: BLE001  # what cannot be judged is hidden
            return REDACTED

    def form(self, body: bytes) -> str:
        """Return an `application/x-www-form-urlencoded` body in printable ASCII."""
        try:
            return _printable(self._text.form(body.decode("utf-8", "surrogateescape")))
        except Exception:  # noqa: BLE001  # what cannot be judged is hidden
            return REDACTED

    def hash_value(self, value: object) -> str:
        """Return what a hidden value was stored as, to search for it.

        Raises:
            SettingsError: the redactor has no key.
        """
        return self.mask.hash(value)

    def _redact_json(self, value: object) -> Any:
        return self._json.redact(value)

    def _is_plain(self, query: bytes) -> bool:
        """Is it a row of `name=value` with nothing to hide?"""
        # %3A is `:` and %3D is `=`, with which a value may assign; %25 may hide them.
        if b"%" in query and (b"%3" in query or b"%25" in query):
            return False
        if _CREDENTIALS.search(query):
            return False
        verdict = 0
        parameters = query.decode("ascii").split("&")
        if len(parameters) > _MANY:
            return False
        for parameter in parameters:
            name, equals, value = parameter.partition("=")
            if not equals or "=" in value:
                return False
            verdict |= self._verdicts[name]
        return not verdict & SECRET and verdict & _HIDES_STATE != _HIDES_STATE


_HARMLESS_QUERY = _HARMLESS + b"&=%"


def _printable(text: str) -> str:
    if text.isascii() and text.isprintable() and " " not in text:
        return text
    return quote(text, safe=_PRINTABLE, errors="surrogateescape")
