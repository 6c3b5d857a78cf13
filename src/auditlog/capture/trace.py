"""Correlation: which trace, and which request of a caller, a request belongs to.

Takes headers, gives ids that are safe to store and to send back, or None: an id that is
malformed or ambiguous is no id. Nothing is made up here.
"""

import re
from collections.abc import Iterable
from typing import TypeAlias

Correlation: TypeAlias = tuple[str | None, str | None, str | None]

_TRACEPARENT, _REQUEST_ID = b"traceparent", b"x-request-id"
_NAMES = frozenset({_TRACEPARENT, _REQUEST_ID})
# https://www.w3.org/TR/trace-context/#traceparent-header; later versions may append fields.
_FIELDS = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?\Z", re.DOTALL)
_FIRST_VERSION, _INVALID_VERSION = "00", "ff"
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
# Printable ASCII without space, quotation mark and apostrophe.
_SAFE = bytes(code for code in range(0x21, 0x7F) if code not in b"\"'")
_MAX_REQUEST_ID = 128


def correlation(headers: Iterable[tuple[bytes, bytes]]) -> Correlation:
    """Return trace id, parent span id and request id, in one pass over the headers.

    A header that comes twice counts as absent, as the specification of traceparent asks.
    """
    parent: bytes | None = None
    caller_id: bytes | None = None
    for name, value in headers:
        if name in _NAMES:
            if name == _TRACEPARENT:
                parent = value if parent is None else b""
            else:
                caller_id = value if caller_id is None else b""
    trace_id, span_id = (parent and parse_traceparent(parent)) or (None, None)
    return trace_id, span_id, request_id(caller_id) if caller_id else None


def parse_traceparent(value: bytes) -> tuple[str, str] | None:
    """Return trace id and parent span id of a traceparent header, or None."""
    found = _FIELDS.match(value.decode("latin-1"))
    if found is None:
        return None
    version, trace_id, span_id, more = found.groups()
    if version == _INVALID_VERSION or (more is not None and version == _FIRST_VERSION):
        return None
    return None if trace_id == _NO_TRACE or span_id == _NO_SPAN else (trace_id, span_id)


def request_id(value: bytes | None) -> str | None:
    """Return a caller's id for the request, if it is one: 1 to 128 safe characters."""
    if not value or len(value) > _MAX_REQUEST_ID or value.translate(None, _SAFE):
        return None
    return value.decode("ascii")
