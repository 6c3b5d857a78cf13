"""Correlation: which trace, and which request of a caller, a request belongs to.

Takes headers, gives ids that are safe to store and to send back, or None: an id that is
malformed or ambiguous is no id. Nothing is made up here.
"""

from collections.abc import Iterable
from typing import TypeAlias

Correlation: TypeAlias = tuple[str | None, str | None, str | None]

# https://www.w3.org/TR/trace-context/#traceparent-header
_LENGTH = 55
_HEX_DIGITS = b"0123456789abcdef"
_FIRST_VERSION, _INVALID_VERSION = b"00", b"ff"
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_DASH = ord("-")
# Printable ASCII without space, quotation mark and apostrophe.
_SAFE = bytes(code for code in range(0x21, 0x7F) if code not in b"\"'")
_MAX_REQUEST_ID = 128
_NOTHING: Correlation = (None, None, None)


def correlation(headers: Iterable[tuple[bytes, bytes]]) -> Correlation:
    """Return trace id, parent span id and request id, in one pass over the headers.

    A header that comes twice counts as absent, as the specification of traceparent asks.
    """
    parent = caller_id = None
    for name, value in headers:
        if name == b"traceparent":
            parent = value if parent is None else b""
        elif name == b"x-request-id":
            caller_id = value if caller_id is None else b""
    if parent is None:
        return _NOTHING if caller_id is None else (None, None, request_id(caller_id))
    trace_id, span_id = parse_traceparent(parent) or (None, None)
    return trace_id, span_id, request_id(caller_id)


def parse_traceparent(value: bytes) -> tuple[str, str] | None:
    """Return trace id and parent span id of a traceparent header, or None."""
    if len(value) != _LENGTH:
        value = _first_fields(value)
    # All that is left without the digits are the dashes: cheaper than a regular expression.
    if value.translate(None, _HEX_DIGITS) != b"---" or value.startswith(_INVALID_VERSION):
        return None
    if not value[2] == value[35] == value[52] == _DASH:
        return None
    text = value.decode("ascii")
    trace_id, span_id = text[3:35], text[36:52]
    return None if trace_id == _NO_TRACE or span_id == _NO_SPAN else (trace_id, span_id)


def request_id(value: bytes | None) -> str | None:
    """Return a caller's id for the request, if it is one: 1 to 128 safe characters."""
    if not value or len(value) > _MAX_REQUEST_ID or value.translate(None, _SAFE):
        return None
    return value.decode("ascii")


def _first_fields(value: bytes) -> bytes:
    """Later versions may append fields after another dash; the first version has none."""
    if value[_LENGTH : _LENGTH + 1] != b"-" or value.startswith(_FIRST_VERSION):
        return b""
    return value[:_LENGTH]
