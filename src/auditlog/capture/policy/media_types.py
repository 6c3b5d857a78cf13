"""Which bodies can be stored: those whose secrets can be found.

Takes a content type, or a pattern of one, and names the way to redact it: `json`, `form` or
`text`. There is none for anything else (XML, CSV, multipart, binary): such a body is left out.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["json", "form", "text"]

DEFAULT_BODY_TYPES: Final = (
    "application/json",
    "application/*+json",
    "application/x-www-form-urlencoded",
)

_TEXTS = frozenset({"text/plain", "application/graphql"})
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
_PATTERN = re.compile(r"(?:\*|[\w.+-]+)/[\w.+*-]+")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)


def media_type(content_type: str | None) -> str:
    """Return `type/subtype` in lower case, without parameters; empty for None."""
    return (content_type or "").partition(";")[0].strip().lower()


def kind_of(media: str) -> Kind | None:
    """Return how a body of this media type is redacted; None if it cannot be."""
    if media == "application/json" or media.endswith("+json"):
        return "json"
    if media == "application/x-www-form-urlencoded":
        return "form"
    return "text" if media in _TEXTS else None


def is_listed(media: str, patterns: Iterable[str]) -> bool:
    """Tell whether a media type is among patterns like `application/*+json`."""
    return any(_compiled(pattern).fullmatch(media) is not None for pattern in patterns)


def is_readable_charset(content_type: str) -> bool:
    """Tell whether the text is UTF-8, as far as the content type says."""
    found = _CHARSET.search(content_type)
    return found is None or found[1].lower() in _CHARSETS


def body_type_problem(pattern: str) -> str | None:
    """Say what is wrong with a pattern of a policy; None if it is right."""
    if not _PATTERN.fullmatch(pattern):
        return f"{pattern!r} is no content type; write one like 'application/json'"
    if "*" not in pattern and kind_of(pattern.lower()) is None:
        return (
            f"{pattern!r} cannot be redacted and is never stored; "
            "JSON, forms, text/plain and application/graphql can"
        )
    return None


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Few patterns, all from policies."""
    return re.compile("[^/]*".join(map(re.escape, pattern.lower().split("*"))))
