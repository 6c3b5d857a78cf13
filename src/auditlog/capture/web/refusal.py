"""What a client gets instead of an answer that cannot be audited: 503, told as RFC 9457 has it.

The body says nothing of what is broken behind it. After the application ran there is no
`Retry-After`: whoever tries again may do it twice.
"""

from math import ceil
from typing import Final

import orjson

from auditlog.capture.web.asgi_types import Message, Scope
from auditlog.settings import Settings

NOT_CARRIED_OUT: Final = (
    "This request cannot be recorded in the audit trail at present, and was not carried out."
)
ANSWER_WITHHELD: Final = (
    "What became of this request could not be recorded in the audit trail in time, so its answer"
    " is withheld. It may have been carried out."
)
TRY_AGAIN_LATER: Final = 1013
"""The code with which a WebSocket is closed (IANA)."""
_STATUS: Final = 503
_TITLE: Final = "Service Unavailable"


def scope_refusal(scope: Scope, detail: str, retry_after_s: int | None) -> list[Message]:
    """Return the messages that refuse what a scope begins: a request, or a handshake.

    Args:
        scope: Of HTTP or of a WebSocket.
        detail: A sentence for people.
        retry_after_s: In seconds; None where trying again is not to be suggested.
    """
    if scope["type"] == "http":
        return http_refusal(detail, retry_after_s, is_head=scope.get("method") == "HEAD")
    if "websocket.http.response" in (scope.get("extensions") or ()):
        return _websocket_refusal(detail, retry_after_s)
    return [{"type": "websocket.close", "code": TRY_AGAIN_LATER}]


def http_refusal(detail: str, retry_after_s: int | None, *, is_head: bool) -> list[Message]:
    """Return the two messages of the response.

    Args:
        detail: A sentence for people.
        retry_after_s: In seconds; None where trying again is not to be suggested.
        is_head: Is it the answer to a HEAD, which has no body?
    """
    start, body = _response("", detail, retry_after_s)
    return [start, {**body, "body": b""} if is_head else body]


def _websocket_refusal(detail: str, retry_after_s: int | None) -> list[Message]:
    """Return the two messages of the extension `websocket.http.response`."""
    return _response("websocket.", detail, retry_after_s)


def retry_after(settings: Settings) -> int:
    """Return after how many seconds what was not carried out may be tried again."""
    return ceil(settings.commit_timeout_s)


def _response(prefix: str, detail: str, retry_after_s: int | None) -> list[Message]:
    problem = {"type": "about:blank", "title": _TITLE, "status": _STATUS, "detail": detail}
    body = orjson.dumps(problem)
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
    ]
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    return [
        {"type": f"{prefix}http.response.start", "status": _STATUS, "headers": headers},
        {"type": f"{prefix}http.response.body", "body": body},
    ]
