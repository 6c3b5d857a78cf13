"""Correlation: which trace, and which request of a caller, a request belongs to.

Takes headers, gives ids that are safe to store and to send back, or None: an id that is
malformed or ambiguous is no id. Nothing is made up here.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Correlation: TypeAlias = tuple[str | None, str | None, str | None]

# https://www.w3.org/TR/trace-context/#traceparent-header: version ff and ids of zeros only are
# invalid; versions after the first may append fields after another dash.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?![^-])"
)
_LENGTH = 55
_FIRST_VERSION = "00"
# Printable ASCII without space, quotation mark and apostrophe.
_REQUEST_ID = re.compile(r"[!#-&(-~]{1,128}")
_NAMES = {b"traceparent": "traceparent", b"x-request-id": "x-request-id"}


def correlation(headers: Mapping[str, list[str]]) -> Correlation:
    """Return trace id, parent span id and request id, from headers by their lower-case names.

    A header that comes twice counts as absent, as the specification of traceparent asks.
    """
    trace_id = span_id = None
    values = headers.get("traceparent")
    if values is not None and len(values) == 1 and (parents := parse_traceparent(values[0])):
        trace_id, span_id = parents
    values = headers.get("x-request-id")
    if values is None or len(values) != 1 or not _REQUEST_ID.fullmatch(values[0]):
        return trace_id, span_id, None
    return trace_id, span_id, values[0]


def raw_correlation(headers: Iterable[tuple[bytes, bytes]]) -> Correlation:
    """Do the same with the headers as ASGI gives them."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if name in _NAMES:
            found.setdefault(_NAMES[name], []).append(value.decode("latin-1"))
    return correlation(found)


def parse_traceparent(value: str) -> tuple[str, str] | None:
    """Return trace id and parent span id of a traceparent header, or None."""
    found = _TRACEPARENT.match(value)
    if found is None or (len(value) != _LENGTH and value.startswith(_FIRST_VERSION)):
        return None
    return found[1], found[2]
