"""Secrets in texts: URLs, query strings, forms, and free text that assigns or quotes them.

Takes text and gives text back; what carries no secret comes back unchanged, nothing is decoded.
A secret's name stays, its value goes. Where two readings of a text are possible (is `;` a
separator? where does userinfo end?) the reading that hides more is taken. Time is linear in the
length of the text, whatever it holds. May raise on hostile input: the caller hides the whole.
"""

import re
from collections.abc import Callable
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote_plus

import orjson

from auditlog.capture.redaction.keyed_hash import REDACTED, Mask, is_mask
from auditlog.capture.redaction.secret_names import OAUTH, SECRET, STATE, SecretNames, decode_fully

# Without one of these, however often it is percent-encoded, a text assigns nothing to a name.
_SUSPICIOUS = re.compile(r"[=:]|%(?:3[aAdD]|25)|[bB](?:earer|EARER|asic|ASIC)(?:[\s+]|%20)")
# A link, as most texts with a colon are: no userinfo, no parameters, nothing encoded.
_PLAIN_URL = re.compile(r"[a-z]+://[\w./:~-]*\Z", re.ASCII)
_PIECE_END = re.compile(r"([?&#])")
# From one separator to the next: a start within a name would make the search quadratic.
_NAME = re.compile(r"(?<![^=;/?&#])([^=;/?&#]*+)=")
_TOKEN = re.compile(r"(?<!\S)(?=\S*?[=?%/])\S+")
_AUTHORITY = re.compile(r"(?:\A|[:=])[/\\]{2,}")
_HOST = re.compile(r"[^/?#&\\\s]*")
_HOST_AND_PORT = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::\d{0,5})?")
# A parameter of this length without a value is no name: `/unsubscribe?<token>`.
_MAX_BARE_NAME = 32
# More names are judged in no text: what follows is hidden, so that the worst takes milliseconds.
_MAX_NAMES = 1000

# What stands between a name and its value; or a scheme, if credentials follow: they have a digit,
# "bearer authentication" has none.
_MARK = re.compile(
    r"""[:=]{1,3} >? [\s+]{0,8} \\{0,4}
    | [bB] (?<![\w.-].) (?i: earer | asic ) [\s+]{1,8} (?= \S{8} ) (?= \S{0,256} [0-9=+] )""",
    re.VERBOSE | re.DOTALL,
)
# The one or two words of a name, read backwards from the mark: no search, whatever lies before.
_NAME_BACKWARDS = re.compile(r"[\s+]{0,8}[\\\"'\])]{0,8}([\w.-]+)( [\w.-]+)?")
_MAX_NAME_LENGTH = 128
_SCHEME = re.compile(r"(?i:bearer|basic|digest|dpop|token|negotiate|ntlm)[\s+]{1,8}|")
# Three quotation marks begin a block string, of GraphQL or of Python.
_QUOTED = re.compile(r"""("{3}|'{3}|["'])(?:(?!\1)[^\\]|\\.)*+(?:\1)?""", re.DOTALL)
# An object or a list ends who knows where.
_ANY_VALUE = re.compile(rf"{_QUOTED.pattern}|\[REDACTED\]\S*|[{{\[].*|\S+", re.DOTALL)
# A header in a text: its value has several words.
_OF_ONE_LINE = ("cookie", "authorization")
_REST_OF_LINE = re.compile(rf"{_QUOTED.pattern}|[^\r\n]+", re.DOTALL)
_QUOTES = "\"'"
_TIMESTAMP = "0123456789-:.TZ "


class TextRedactor:
    """Redacts text; `redact_json` is what a JSON document inside a text is given to."""

    def __init__(
        self, names: SecretNames, mask: Mask, redact_json: Callable[[object], Any]
    ) -> None:
        self._names = names
        self._verdicts = names.parameters
        self._mask = mask
        self._redact_json = redact_json

    def text(self, text: str) -> str:
        """Redact free text: every URL and assignment in it, or the JSON document that it is."""
        if not _SUSPICIOUS.search(text) or _PLAIN_URL.match(text):
            return text
        cleaned = self._json_document(text)
        if cleaned is not None:
            return cleaned
        # What is quoted may hold spaces, so it goes before the text is taken apart at them.
        if '"' in text or "'" in text:
            text = self._assignments(text, _QUOTED)
        left = iter(range(_MAX_NAMES))
        text = _TOKEN.sub(
            lambda token: REDACTED if next(left, None) is None else self.url(token[0]), text
        )
        return self._assignments(text, _ANY_VALUE)

    def url(self, text: str) -> str:
        """Redact a URL, a request target or a query string."""
        pieces = _PIECE_END.split(_without_userinfo(text), _MAX_NAMES)
        if len(pieces) > 2 * _MAX_NAMES:
            pieces[-1] = REDACTED
        secret = self._secret_verdicts(text)
        pieces[0] = self._piece(pieces[0], secret)
        pieces[2::2] = [self._parameter(piece, secret) for piece in pieces[2::2]]
        return "".join(pieces)

    def form(self, text: str) -> str:
        """Redact parameters that no `?` introduces."""
        return self.url("?" + text)[1:]

    def _secret_verdicts(self, text: str) -> int:
        """`state` is a secret in an OAuth exchange, and a filter elsewhere."""
        if "%" not in text and "state" not in text.lower():
            return SECRET
        names = islice(_NAME.finditer(text), _MAX_NAMES)
        oauth = any(self._verdicts[found[1]] & OAUTH for found in names)
        return SECRET | STATE if oauth else SECRET

    def _parameter(self, piece: str, secret: int) -> str:
        name, equals, value = piece.partition("=")
        if (not value.strip("=") and value != "") or not equals:
            return self._hide(piece) if len(name) > _MAX_BARE_NAME else self._piece(piece, secret)
        if not name or "=" in value or ";" in piece:
            return self._piece(piece, secret)
        if self._verdicts[name] & secret:
            return f"{name}={self._hide(value)}"
        return f"{name}={self._value(value)}"

    def _piece(self, piece: str, secret: int) -> str:
        """Redact a part of a URL that holds one parameter, or several with `;` between them."""
        name, equals, value = piece.partition("=")
        if not equals:
            return self._value(piece)
        for count, found in enumerate(_NAME.finditer(piece)):
            start, end = found.span()
            nameless = start == 0 or piece[start - 1] == ";"
            hidden = self._verdicts[found[1]] & secret if found[1] else nameless
            if hidden or count > _MAX_NAMES:
                # Up to the end of the piece: to some servers `;` and `=` belong to the value.
                return piece[:end] + self._hide(piece[end:])
        return f"{name}={self._value(value)}"

    def _value(self, value: str) -> str:
        """Redact what a value holds: an encoded URL, a JSON document, assignments."""
        if not _SUSPICIOUS.search(value):
            return value
        innermost, certain = decode_fully(value)
        if not certain:
            return self._mask(value)
        if not innermost.strip(_TIMESTAMP):
            return value
        # One layer at a time: a separator of an inner layer is none in this one.
        decoded = unquote_plus(value)
        if decoded == value:
            cleaned = self._json_document(value)
            return self._assignments(value, _ANY_VALUE) if cleaned is None else cleaned
        cleaned = self.text(decoded)
        return value if cleaned == decoded else quote(cleaned, safe="/:[]", errors="replace")

    def _json_document(self, text: str) -> str | None:
        """Redact a text that is a JSON document; None if it is none or holds no secret."""
        if text.lstrip()[:1] not in {"{", "["}:
            return None
        try:
            document = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        cleaned = self._redact_json(document)
        # Unchanged is not yet clean: of two equal keys the parser shows only the last.
        return None if cleaned == document else orjson.dumps(cleaned).decode()

    def _assignments(self, text: str, value_pattern: re.Pattern[str]) -> str:
        """Hide the value in `password: x`, `"token" = "x"`, `Bearer x`, wherever they stand."""
        parts: list[str] = []
        done = position = count = 0
        while mark := _MARK.search(text, position):
            position = mark.end()
            count += 1
            if count > _MAX_NAMES:
                return "".join([*parts, text[done:position], REDACTED])
            name = self._secret_name(text, mark, done)
            if name is None:
                continue
            scheme = _SCHEME.match(text, position)
            start = scheme.end() if scheme else position
            of_line = value_pattern is _ANY_VALUE and name.endswith(_OF_ONE_LINE)
            value = (_REST_OF_LINE if of_line else value_pattern).match(text, start)
            if value:
                parts += (text[done:start], self._hide_quoted(value[0]))
                done = position = value.end()
        return "".join([*parts, text[done:]]) if parts else text

    def _secret_name(self, text: str, mark: re.Match[str], done: int) -> str | None:
        """Return the name before a mark in lower case, if it is a secret's; empty for a scheme."""
        start = mark.start()
        if text[start] not in ":=":
            return ""
        before = text[max(done, start - _MAX_NAME_LENGTH) : start]
        words = _NAME_BACKWARDS.match(before[::-1])
        if words is None:
            return None
        verdicts, name = self._names.fields, words[1][::-1]
        if verdicts[name] or (words[2] and verdicts[words[2][::-1] + name]):
            return name.lower()
        return None

    def _hide_quoted(self, value: str) -> str:
        mark = value[0] if value[0] in _QUOTES else ""
        bare = value.strip(mark) if mark else value
        # What `url` has been through may go on behind the mask: token=[REDACTED]&page=2.
        return value if is_mask(bare.partition("&")[0]) else f"{mark}{self._mask(bare)}{mark}"

    def _hide(self, value: str) -> str:
        """Hide a value by what it says, so that its hash does not depend on its encoding."""
        if is_mask(value.strip(_QUOTES)):
            return value
        return self._mask(decode_fully(value.replace("+", " "))[0] if self._mask.keyed else value)


def _without_userinfo(text: str) -> str:
    """Drop `user:password@` from every authority in a text."""
    last = text.rfind("@")
    if last < 0:
        return text
    kept, done = [], 0
    for count, found in enumerate(_AUTHORITY.finditer(text, 0, last)):
        start = found.end()
        authority = _HOST.match(text, start)
        if start < done or authority is None:
            break
        at = authority[0].rfind("@")
        if at >= 0:
            kept.append(text[done:start])
            done = start + at + 1
        elif count > _MAX_NAMES or not _HOST_AND_PORT.fullmatch(authority[0]):
            # No port: a password with a raw / or ? in it, that ends at who knows which @.
            kept.append(text[done:start] + REDACTED)
            done = last
    kept.append(text[done:])
    return "".join(kept)
