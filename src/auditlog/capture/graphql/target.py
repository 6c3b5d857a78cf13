"""The target of a request that asks by its URL → the same without document and variables.

A document holds every value that somebody wrote into it, under whatever name; and variables are
stored where a rule asks for them, not in a URL (GraphQL over HTTP, section "GET").
"""

from typing import Final
from urllib.parse import unquote_plus

from auditlog.capture.redaction.keyed_hash import REDACTED

HIDDEN: Final = frozenset({"query", "variables"})


def without_document(target: str) -> str:
    """Return a target in which these parameters have no value."""
    path, mark, query = target.partition("?")
    return path + mark + "&".join(_parameter(each) for each in query.split("&"))


def _parameter(text: str) -> str:
    name, _, value = text.partition("=")
    return f"{name}={REDACTED}" if value and unquote_plus(name) in HIDDEN else text
