"""The answer to a request beyond a quota: messages for HTTP, and for a WebSocket's handshake.

Never raises: what cannot be told in full is refused without words.
"""

from typing import Final

from auditlog.capture.web.asgi_types import Message, Scope
from auditlog.capture.web.refusal import Headers, answer, told
from auditlog.quota.answering.fields import (
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
    try:
        status, headers, body = _told(refusal)
    except Exception as error:  # noqa: BLE001  # a refusal without words is still one
        reporter.report("auditlog.quota_failed", f"a refusal tells nothing: {describe(error)}")
        status, headers, body = TOO_MANY_REQUESTS, list(_WORDLESS), b""
    return answer(scope, status, headers, body)


def _told(refusal: Decision) -> tuple[int, Headers, bytes]:
    headers = [(RETRY_AFTER, b"%d" % retry_after_s(refusal)), *fields_of([refusal])]
    return status_of(refusal), *told(problem_of(refusal), headers)
