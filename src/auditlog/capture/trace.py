"""Correlation: which trace, and which request of a caller, a request belongs to.

Takes headers, gives ids that are safe to store and to send back, or None: an id that is
malformed or ambiguous is no id. Nothing is made up here.
"""

import re
from collections.abc import Iterable
from typing import TypeAlias

Correlation: TypeAlias = tuple[str | None, str | None, str | None]

# https://www.w3.org/TR/trace-context/#traceparent-header: version ff and ids of zeros only are
# invalid; later versions may append fields after another dash.
_TRACEPARENT = re.compile(
    rb"(?:00|(?!ff|00)[0-9a-f]{2}(?=.{53}(?:-|\Z)))"
    rb"-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}",
    re.DOTALL,
)
_TRACEPARENT_LENGTH = 55
_FIRST_VERSION = b"00"
# Printable ASCII without space, quotation mark and apostrophe.
_REQUEST_ID = re.compile(rb"[!#-&(-~]{1,128}")
_NAMES = frozenset({b"traceparent", b"x-request-id"})
_NOTHING: Correlation = (None, None, None)


def correlation(headers: Iterable[tuple[bytes, bytes]]) -> Correlation:
    """Return trace id, parent span id and request id, in one pass over the headers.

    A header that comes twice counts as absent, as the specification of traceparent asks.
    """
    found = None
    for name, value in headers:
        if name in _NAMES:
            if found is None:
                found = {name: value}
            else:
                found[name] = b"" if name in found else value
    if found is None:
        return _NOTHING
    parents = parse_traceparent(found.get(b"traceparent", b""))
    caller_id = request_id(found.get(b"x-request-id"))
    return (None, None, caller_id) if parents is None else (*parents, caller_id)


def parse_traceparent(value: bytes) -> tuple[str, str] | None:
    """Return trace id and parent span id of a traceparent header, or None."""
    found = _TRACEPARENT.match(value)
    if found is None:
        return None
    if len(value) != _TRACEPARENT_LENGTH and value.startswith(_FIRST_VERSION):
        return None
    trace_id, span_id = found.groups()
    return trace_id.decode(), span_id.decode()


def request_id(value: bytes | None) -> str | None:
    """Return a caller's id for the request, if it is one: 1 to 128 safe characters."""
    if value is None or _REQUEST_ID.fullmatch(value) is None:
        return None
    return value.decode("ascii")
