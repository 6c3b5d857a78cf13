"""Headers: which are kept, and what of their values.

Takes the raw pairs of a request and gives name → values, lower-case, in order, duplicates kept.
Only names on the allow-list are kept (`*`: all); of a secret header stays what says nothing: the
scheme of an Authorization, the names of cookies, the origin of a Referer. Bytes are latin-1
(RFC 9110, 5.5), so that every value is survived.
"""

import re
from collections.abc import Callable, Iterable
from typing import TypeAlias

from auditlog.capture.redaction.keyed_hash import REDACTED, Mask
from auditlog.capture.redaction.secret_names import SecretNames, normalise
from auditlog.capture.remembered import Remembered
from auditlog.errors import SettingsError

Show: TypeAlias = Callable[[str], str]
Entry: TypeAlias = tuple[str, Show | None] | None

# IANA's registry of HTTP authentication schemes, and what large services use beside it. Only a
# known word is shown: any other first word may be half of the secret.
_SCHEMES = frozenset(
    {
        "apikey",
        "aws",
        "aws4-hmac-sha256",
        "basic",
        "bearer",
        "concealed",
        "digest",
        "dpop",
        "gnap",
        "googlelogin",
        "hawk",
        "hoba",
        "jwt",
        "key",
        "mac",
        "mutual",
        "negotiate",
        "ntlm",
        "oauth",
        "privatetoken",
        "scram-sha-1",
        "scram-sha-256",
        "sharedkey",
        "sharedkeylite",
        "signature",
        "splunk",
        "token",
        "vapid",
    }
)
_URL_HEADERS = frozenset(
    {
        ":path",
        "content-location",
        "destination",
        "link",
        "location",
        "refresh",
        "x-envoy-original-path",
        "x-forwarded-uri",
        "x-forwarded-url",
        "x-original-uri",
        "x-original-url",
        "x-rewrite-url",
    }
)
# Nothing in these is looked at: they are standard, and what stands in them is no secret.
_HARMLESS_BEGINNINGS = ("accept", "access-control-", "if-", "sec-")
_HARMLESS = frozenset(
    {
        "cache-control",
        "connection",
        "content-encoding",
        "content-language",
        "content-length",
        "content-type",
        "date",
        "dnt",
        "expect",
        "forwarded",
        "host",
        "idempotency-key",
        "pragma",
        "priority",
        "range",
        "te",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
        "upgrade-insecure-requests",
        "user-agent",
        "via",
        "x-correlation-id",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "x-requested-with",
    }
)
_ORIGIN = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]*:)//(?:[^/?#\\]*@)?([\w.~%-]+(?::\d{1,5})?|\[[\w:.%]+\](?::\d{1,5})?)(?=[/?#]|\Z)"
)
_COOKIE_PAIR = re.compile(r'(?:"[^"]*+"(?=\s*(?:;|\Z))|[^;"]|")+')
_COOKIE_ATTRIBUTE = re.compile(
    r"(?i:expires=[\w ,:+-]*|(?:max-age|domain|path|samesite|priority|version)=[\w./ -]*"
    r"|secure|httponly|partitioned)"
)
_CREDENTIALS = re.compile(
    r"(?i:(?:bearer|basic|digest|dpop|token|negotiate|ntlm|apikey)\s+\S|eyJ[\w-]{8,}\.[\w-]{8,})"
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Longer "names" are values: a nameless cookie, a token given as a WebSocket subprotocol.
_MAX_COOKIE_NAME = 64
_MAX_EMPTY_COOKIE_NAME = 32
_MAX_SUBPROTOCOL = 32
_SHORTEST_ORIGIN = len("https://")


class HeaderPlan(Remembered[bytes, Entry]):
    """Raw name → lower-case name and how to show the value; None for what is not kept.

    Raises:
        SettingsError: an allow-listed name that no header can have.
    """

    def __init__(
        self, allowed: Iterable[str], names: SecretNames, mask: Mask, redact_url: Show
    ) -> None:
        super().__init__(self._entry)
        self._allowed = frozenset(name.lower() for name in allowed)
        self._all = "*" in self._allowed
        self._verdicts = names.headers
        self._values = _Values(mask, names, redact_url)
        self.subprotocol = self._values.subprotocols
        for name in self._allowed - {"*"}:
            if not _TOKEN.fullmatch(name.removeprefix(":")):
                raise SettingsError(
                    f"capture_headers: {name!r} is no header name; write names, or '*' for all"
                )
            self[name.encode()] = self._entry(name.encode())

    def _entry(self, raw: bytes) -> Entry:
        name = raw.decode("latin-1").lower()
        return (name, self._show(name)) if self._all or name in self._allowed else None

    def _show(self, name: str) -> Show | None:
        values, normal = self._values, normalise(name)
        for ending, show in values.by_ending.items():
            if normal.endswith(ending):
                return show
        if self._verdicts[name]:
            return values.hidden
        harmless = name in _HARMLESS or name.startswith(_HARMLESS_BEGINNINGS)
        return values.by_name.get(name, None if harmless else values.unknown)


class _Values:
    """How the value of each kind of header is shown."""

    def __init__(self, mask: Mask, names: SecretNames, redact_url: Show) -> None:
        self._mask = mask
        self._redact_url = redact_url
        self._verdicts = names.headers
        self._origins: Remembered[str, str] = Remembered(self._find_origin)
        self.by_ending: dict[str, Show] = {
            "setcookie": self.set_cookie,
            "cookie": self.cookie,
            "authorization": self.authorization,
            "authorisation": self.authorization,
        }
        self.by_name: dict[str, Show] = {
            "origin": self.origin,
            "referer": self.origin,
            "sec-websocket-protocol": self.subprotocols,
            **dict.fromkeys(_URL_HEADERS, redact_url),
        }

    def hidden(self, value: str) -> str:
        """Show nothing."""
        if not self._mask.keyed:
            return self._mask(value)
        try:
            # Search by the text that people type, which is UTF-8 in most clients.
            return self._mask(value.encode("latin-1").decode())
        except UnicodeDecodeError:
            return self._mask(value)

    def authorization(self, value: str) -> str:
        """Keep the scheme: `Bearer [REDACTED]`; a lone token goes whole."""
        scheme, _, credentials = value.partition(" ")
        if credentials.strip() and scheme.lower() in _SCHEMES:
            return f"{scheme} {self.hidden(credentials.strip())}"
        return self.hidden(value)

    def cookie(self, value: str) -> str:
        """Keep the names: `session=[REDACTED]; theme=[REDACTED]`."""
        # Servers differ on whether a quoted value may hold a semicolon.
        pairs = value.split(";") if '"' not in value else _COOKIE_PAIR.findall(value)
        return "; ".join([self._cookie_pair(pair.strip()) for pair in pairs])

    def set_cookie(self, value: str) -> str:
        """Keep the name and the attributes."""
        pair, *attributes = value.split(";")
        shown = [self.cookie(pair)]
        for attribute in map(str.strip, attributes):
            known = _COOKIE_ATTRIBUTE.fullmatch(attribute)
            shown.append(attribute if known else self.hidden(attribute))
        return "; ".join(shown)

    def origin(self, value: str) -> str:
        """Keep scheme, host and port."""
        # Up to the first slash behind https://: few of these, so each is worked out once.
        end = value.find("/", _SHORTEST_ORIGIN)
        return self._origins[value if end < 0 else value[:end]]

    def subprotocols(self, value: str) -> str:
        """Keep protocols; browsers, that can set no header, send tokens among them."""
        shown: list[str] = []
        for item in map(str.strip, value.split(",")):
            if self._verdicts[item]:
                # The next one may be the token: `bearer, <token>`.
                return ", ".join([*shown, REDACTED])
            shown.append(item if len(item) <= _MAX_SUBPROTOCOL else self.hidden(item))
        return ", ".join(shown)

    def unknown(self, value: str) -> str:
        """Keep it but for URLs' secrets, unless it looks like credentials under a wrong name."""
        if _CREDENTIALS.match(value):
            return self.authorization(value)
        return self._redact_url(value) if "//" in value or "?" in value else value

    def _cookie_pair(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        longest = _MAX_COOKIE_NAME if value.strip("=") else _MAX_EMPTY_COOKIE_NAME
        if not equals or len(name) > longest:
            return self.hidden(pair)
        return f"{name}={self.hidden(value)}"

    def _find_origin(self, value: str) -> str:
        found = _ORIGIN.match(value)
        if found is None:
            return value if value in {"null", ""} else self.hidden(value)
        return f"{found[1]}//{found[2]}"
