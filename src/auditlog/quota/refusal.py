"""The answer to a request beyond a quota: messages for HTTP, and for a WebSocket's handshake.

Never raises: what cannot be told in full is refused without words.
"""

from typing import Final

import orjson

from auditlog.capture.web.asgi_types import Message, Scope
from auditlog.capture.web.refusal import TRY_AGAIN_LATER
from auditlog.quota.fields import (
    RETRY_AFTER,
    TOO_MANY_REQUESTS,
    fields_of,
    problem_of,
    retry_after_s,
    status_of,
)
from auditlog.quota.model import Decision
from auditlog.reporting import Reporter, describe

_WORDLESS: Final = [(b"content-length", b"0")]


def refusal_messages(scope: Scope, refusal: Decision, reporter: Reporter) -> list[Message]:
    """Return what is sent in place of an answer of the application's.

    Args:
        scope: Of HTTP or of a WebSocket that is not accepted.
        refusal: Of the quota that is used up.
        reporter: Told if the quota's definition cannot be put into words.
    """
    prefix = "" if scope["type"] == "http" else "websocket."
    if prefix and "websocket.http.response" not in (scope.get("extensions") or ()):
        return [{"type": "websocket.close", "code": TRY_AGAIN_LATER}]
    try:
        status, headers, body = _told(refusal)
    except Exception as error:  # noqa: BLE001  # a refusal without words is still one
        reporter.report("auditlog.quota_failed", f"a refusal tells nothing: {describe(error)}")
        status, headers, body = TOO_MANY_REQUESTS, _WORDLESS, b""
    if scope.get("method") == "HEAD":
        body = b""
    return [
        {"type": f"{prefix}http.response.start", "status": status, "headers": list(headers)},
        {"type": f"{prefix}http.response.body", "body": body},
    ]


def _told(refusal: Decision) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    body = orjson.dumps(problem_of(refusal))
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (RETRY_AFTER, b"%d" % retry_after_s(refusal)),
        *fields_of([refusal]),
    ]
    return status_of(refusal), headers, body
