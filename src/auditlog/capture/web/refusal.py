"""What a client gets instead of an answer that cannot be audited: 503, told as RFC 9457 has it.

The body says nothing of what is broken behind it. After the application ran there is no
`Retry-After`: whoever tries again may do it twice.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any, Final, TypeAlias

import orjson

from auditlog.capture.web.asgi_types import Message, Scope
from auditlog.settings import Settings

Headers: TypeAlias = list[tuple[bytes, bytes]]

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
    problem = {"type": "about:blank", "title": _TITLE, "status": _STATUS, "detail": detail}
    headers = [] if retry_after_s is None else [(b"retry-after", b"%d" % retry_after_s)]
    return answer(scope, _STATUS, *told(problem, headers))


def answer(scope: Scope, status: int, headers: Headers, body: bytes) -> list[Message]:
    """Return the messages of a response in place of the application's.

    A handshake gets it where the server has the extension for that; else it is closed.
    """
    prefix = "" if scope["type"] == "http" else "websocket."
    if prefix and "websocket.http.response" not in (scope.get("extensions") or ()):
        return [{"type": "websocket.close", "code": TRY_AGAIN_LATER}]
    if scope.get("method") == "HEAD":
        body = b""
    return [
        {"type": f"{prefix}http.response.start", "status": status, "headers": headers},
        {"type": f"{prefix}http.response.body", "body": body},
    ]


def told(problem: Mapping[str, Any], headers: Headers) -> tuple[Headers, bytes]:
    """Return headers and body that tell a problem (RFC 9457)."""
    body = orjson.dumps(problem)
    own = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
    ]
    return own + headers, body


def retry_after(settings: Settings) -> int:
    """Return after how many seconds what was not carried out may be tried again."""
    return ceil(settings.commit_timeout_s)
