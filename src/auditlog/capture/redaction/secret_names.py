"""Which names carry secrets: one list for headers, query parameters and JSON fields.

Takes a name as it came, in any spelling (`X-Api-Key`, `apiKey`, `api_key`, `user[api.key]`,
`%61pi_key`), gives a verdict, and remembers it. Nothing can be taken off the list; users add to
it. It judges names only: a secret under an innocent name is not recognised here.
"""

import re
from collections.abc import Iterable
from typing import Final, TypeAlias
from urllib.parse import unquote_to_bytes

from auditlog.capture.remembered import Remembered
from auditlog.errors import SettingsError

Verdicts: TypeAlias = Remembered[str, int]

SECRET: Final = 1
"""The value under this name is never shown."""
STATE: Final = 2
"""`state`: the CSRF value of an OAuth exchange, or an innocent filter (`?state=open`)."""
OAUTH: Final = 4
"""A name that proves an OAuth exchange; beside it `state` counts as a secret."""

INFIXES: Final = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "subscriptionkey",
    "masterkey",
    "accountkey",
    "sharedkey",
    "sessionkey",
    "authkey",
    "credential",
    "authorization",
    "authorisation",
    "cookie",
    "sessionid",
    "sessid",
    "signature",
    "jwt",
    "clientassertion",
    "samlresponse",
    "codeverifier",
    "oauthverifier",
    "devicecode",
    "usercode",
    "authcode",
    "mfacode",
    "otpcode",
    "verificationcode",
    "xgoogiam",
    "oidcdata",
)
"""Secret wherever they stand in a name that is lower-cased and rid of `-`, `_`, `.` and spaces."""

WHOLE_NAMES: Final = (
    "assertion",
    "auth",
    "bearer",
    "cardnumber",
    "cvc",
    "cvv",
    "dpop",
    "hmac",
    "otp",
    "totp",
    "pass",
    "pin",
    "pw",
    "pwd",
    "sig",
)
"""Secret as a whole name, behind `x-`, or as one part of a nested one (`user[pin]`, `a.pin`)."""

PARAMETER_NAMES: Final = ("code", "key", "session", "sid")
"""Secret in query strings and forms only: in JSON they are country codes and map keys."""

HEADER_NAMES: Final = ("session", "sid")
"""Secret as the name of a header."""

INNOCENT_NAMES: Final = frozenset(
    {
        "actortokentype",
        "cachedtokens",
        "clientassertiontype",
        "completiontokens",
        "inputtokens",
        "maxcompletiontokens",
        "maxoutputtokens",
        "maxtokens",
        "mintokens",
        "numtokens",
        "oauthsignaturemethod",
        "outputtokens",
        "prompttokens",
        "reasoningtokens",
        "requestedtokentype",
        "signaturealgorithm",
        "signaturemethod",
        "signatureversion",
        "subjecttokentype",
        "tokencount",
        "tokenlimit",
        "tokentype",
        "tokentypehint",
        "tokenusage",
        "totaltokens",
    }
)
"""Names that contain a secret's name and say something about it, or count it."""

_INNOCENT_PARTS = {"secret": "secret(?!ar[iy])", "token": "token(?!i[sz])"}
_INFIX = re.compile("|".join(_INNOCENT_PARTS.get(infix, infix) for infix in INFIXES))
# "-key with care": the last word of at least two, so that monkey and keyboard are none.
_KEY = re.compile(r"(?:[^a-zA-Z0-9]|(?<=[a-z0-9])(?=K))[kK](?:eys?|EYS?)\Z")
_INNOCENT_KEY = re.compile(
    "idempotency|public|primary|foreign|partition|sort|cache|surrogate|websocket|routing"
    "|lookup|object"
)
_NO_LETTER = re.compile(r"[\W_]+")
_SEPARATOR = re.compile(r"[^\w\s-]+")
_OAUTH_NAMES = frozenset(
    {"accesstoken", "clientid", "code", "error", "idtoken", "responsetype", "sessionstate"}
)
_MAX_DECODES = 4
# What is longer is no name, and cannot be judged.
_MAX_LENGTH = 1024


class SecretNames:
    """The built-in names and the user's, as three tables: `headers`, `parameters`, `fields`.

    Raises:
        SettingsError: an additional name without a letter or digit.
    """

    def __init__(self, additional: Iterable[str] = ()) -> None:
        self.additional = frozenset(_checked(name) for name in additional)
        names = self.additional.union(WHOLE_NAMES)
        header_names = names.union(HEADER_NAMES)
        parameter_names = names.union(PARAMETER_NAMES)
        self.headers: Verdicts = Remembered(lambda name: _judge(name, header_names))
        self.parameters: Verdicts = Remembered(lambda name: _judge_parameter(name, parameter_names))
        self.fields: Verdicts = Remembered(lambda name: _judge(name, names))


def normalise(name: str) -> str:
    """Bring every spelling of a name to one: lower case, letters and digits only."""
    return _NO_LETTER.sub("", name.lower())


def decode_fully(text: str) -> tuple[str, bool]:
    """Undo percent-encoding until nothing changes, and tell whether that point was reached."""
    for _ in range(_MAX_DECODES):
        if "%" not in text:
            return text, True
        data = unquote_to_bytes(text.encode("utf-8", "replace"))
        decoded = data.decode("utf-8", "replace")
        if decoded == text:
            return text, True
        text = decoded
    return text, False


def _checked(name: str) -> str:
    normal = normalise(name)
    if not normal:
        raise SettingsError(
            f"redact_fields: {name!r} has no letter or digit; write a field's name, like 'pin'"
        )
    return normal


def _judge_parameter(name: str, names: frozenset[str]) -> int:
    if len(name) <= _MAX_LENGTH and ("%" in name or "+" in name):
        name, certain = decode_fully(name.replace("+", " "))
        if not certain:
            return SECRET
    normal = normalise(name[:_MAX_LENGTH])
    if not normal:
        # A value without a name cannot be judged either.
        return SECRET
    return (
        _judge(name, names)
        | (STATE if normal == "state" else 0)
        | (OAUTH if normal in _OAUTH_NAMES else 0)
    )


def _judge(name: str, names: frozenset[str]) -> int:
    """Judge each part of a nested name (`user[pin]`, `a.token[]`), and the name as a whole."""
    if len(name) > _MAX_LENGTH:
        return SECRET
    parts = [part for part in _SEPARATOR.split(name) if part and not part.isdigit()]
    if parts and normalise(parts[-1]) in INNOCENT_NAMES:
        return SECRET if any(_is_secret(part, names) for part in parts[:-1]) else 0
    return SECRET if any(_is_secret(part, names) for part in (*parts, name)) else 0


def _is_secret(name: str, names: frozenset[str]) -> bool:
    normal = normalise(name)
    if normal in names or _INFIX.search(normal):
        return True
    if name[:2] in {"x-", "X-", "x_"} and normal[1:] in names:
        return True
    return _KEY.search(name) is not None and not _INNOCENT_KEY.search(normal)
