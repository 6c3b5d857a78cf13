"""An HTTP request in flight: watches the ASGI messages that pass, changes none of them.

`receive` is only ever called by the application; its disconnect message would otherwise be
stolen. The response ends at its last body or trailers message: what the application does after
that (background tasks) is not its duration. Message by message as in ASGI 3.0, HTTP spec 2.5.
"""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from auditlog.capture.outcomes import (
    CANCELLED,
    CLIENT_DISCONNECT,
    CLIENT_ERROR,
    DENIED,
    DERIVED,
    INCOMPLETE,
    OK,
    SERVER_ERROR,
    UNKNOWN,
    WIRE,
)
from auditlog.capture.policy import Decision, Level, Rule
from auditlog.capture.shared import Capture
from auditlog.capture.trace import raw_correlation
from auditlog.capture.web.asgi_types import Message, Receive, Scope, Send
from auditlog.capture.web.body import BodyTee, describe
from auditlog.capture.web.exchange import HTTP, AsgiExchange
from auditlog.capture.web.refusal import scope_refusal

_DENIALS = frozenset({401, 403, 407})
_FIRST_VALID, _FIRST_CLIENT_ERROR, _FIRST_SERVER_ERROR, _FIRST_INVALID = 100, 400, 500, 600


class HttpExchange(AsgiExchange):
    """One request and its response."""

    __slots__ = (
        "_completed",
        "_first_byte_ns",
        "_messages_out",
        "_request_body",
        "_response_body",
        "_response_headers",
        "_trailers",
    )

    _request_body: BodyTee | None
    _response_body: BodyTee | None
    _response_headers: Sequence[tuple[bytes, bytes]]
    """Kept where the response's body is."""

    def __init__(self, capture: Capture, scope: Scope, receive: Receive, send: Send) -> None:
        AsgiExchange.__init__(self, capture, scope, receive, send, scope.get("method", ""))
        self._first_byte_ns = self._messages_out = 0
        self._completed = self._trailers = False
        self._request_body = self._response_body = None
        self._response_headers = ()
        if capture.policy.wants_body(HTTP, self.method, self.path) is not None:
            self._request_body = BodyTee(capture.max_body_bytes)
            self._response_body = BodyTee(capture.max_body_bytes)

    async def receive(self) -> Message:
        """Pass a message to the application."""
        message = await self._receive()
        try:
            kind = message.get("type")
            if kind == "http.request":
                body = message.get("body")
                if body:
                    self.bytes_in += len(body)
                if self._request_body is not None:
                    self._request_body.feed(body or b"")
                    self._request_body.incomplete = bool(message.get("more_body"))
            elif kind == "http.disconnect" and not self.ended_ns:
                self.disconnected = True
        except Exception as failure:  # noqa: BLE001  # not a message, but not ours to refuse
            self.note_unreadable(failure)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message to the server; what the server refuses is not counted as sent."""
        try:
            await self.server(message)
        except OSError:
            self.disconnected = self.disconnected or not self.ended_ns
            raise
        try:
            kind = message.get("type")
            if kind == "http.response.body":
                body = message.get("body")
                if body and not self.disconnected:
                    self.bytes_out += len(body)
                    if self._response_body is not None:
                        self._response_body.feed(body)
                self._messages_out += 1
                if not message.get("more_body") and not self._trailers and not self.ended_ns:
                    self.ended_ns = time.perf_counter_ns()
                    self._completed = True
            elif kind == "http.response.start":
                status = message.get("status")
                self.status = status if type(status) is int else number(status)
                # To a client that is gone, nothing was sent.
                self.status_source = DERIVED if self.disconnected else WIRE
                self._first_byte_ns = time.perf_counter_ns()
                if "trailers" in message or self._response_body is not None:
                    self._note_start(message)
            else:
                self._note_other(kind, message)
        except Exception as failure:  # noqa: BLE001  # not a message, but the server took it
            self.note_unreadable(failure)

    async def send_with_request_id(self, message: Message) -> None:
        """Do what `send` does, and let the client know the request's id."""
        try:
            if message.get("type") == "http.response.start":
                message = self._with_request_id(message)
        except Exception as failure:  # noqa: BLE001  # not a message, but not ours to refuse
            self.note_unreadable(failure)
        await self.send(message)

    def outgoing(self) -> Send:
        """The `send` for the application."""
        return self.send_with_request_id if self.capture.echo_request_id else self.send

    def mark_end(self) -> None:
        """Take note that the client can have its whole answer."""
        if not self.ended_ns:
            self.ended_ns = time.perf_counter_ns()
            self._completed = True

    def refusal(self, detail: str, retry_after_s: int | None) -> list[Message]:
        """Return the messages of a 503."""
        return scope_refusal(self.source, detail, retry_after_s)

    def conclude(self, error: BaseException | None) -> None:
        """Tell the status that was sent from one that is only probable."""
        if error is not None:
            self.note_error(error)
        if self.disconnected:
            # Even if the application went on to the end: what it sent from then on reached nobody.
            self.outcome = CLIENT_DISCONNECT
        elif self._completed:
            self.outcome = _OUTCOME_OF_STATUS.get(self.status, UNKNOWN)
        elif error is not None and not isinstance(error, Exception):
            self.outcome = CANCELLED
        elif self.status is None:
            # Outer middleware or the server answers for an application that did not.
            self.status, self.status_source = 500, DERIVED
            self.outcome = SERVER_ERROR
        else:
            self.outcome = INCOMPLETE if error is None else SERVER_ERROR

    def describe(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add sizes, times and bodies."""
        if self.bytes_in:
            metadata["http.request.body.size"] = self.bytes_in
        # Servers drop the body of an answer to HEAD.
        if self.bytes_out and self.method != "HEAD":
            metadata["http.response.body.size"] = self.bytes_out
        if self._messages_out > 1:
            first_byte_ns = self._first_byte_ns - self.started_ns
            metadata["audit.first_byte_ms"] = first_byte_ns // 1_000_000
        if decision.level is Level.BODY and decision.matched is not None:
            self._describe_bodies(metadata, decision.matched)

    def _describe_bodies(self, metadata: dict[str, Any], rule: Rule) -> None:
        redactor = self.capture.redactor
        if self._response_body is not None:
            self._response_body.incomplete = not self._completed
        for key, tee, headers in (
            ("audit.request_body", self._request_body, self.raw_headers),
            ("audit.response_body", self._response_body, self._response_headers),
        ):
            if tee is not None and tee.total:
                content_type, encoding = _content_headers(headers)
                metadata[key] = describe(tee, content_type, encoding, rule, redactor)

    def _note_start(self, message: Message) -> None:
        self._trailers = bool(message.get("trailers"))
        self._response_headers = list(message.get("headers") or ())

    def _note_other(self, kind: object, message: Message) -> None:
        """The extensions that end a response; all others only pass."""
        if kind == "http.response.trailers":
            if not message.get("more_trailers"):
                self.mark_end()
        elif kind == "http.response.pathsend":
            self.mark_end()
        elif kind == "http.response.zerocopysend":
            self.bytes_out += message.get("count") or 0
            self._messages_out += 1
            if not message.get("more_body"):
                self.mark_end()

    def _with_request_id(self, message: Message) -> Message:
        """Copy a start message with the request's id, unless the application set one."""
        # The list goes into the copy in any case: the application's may be an iterator.
        headers = list(message.get("headers") or ())
        if not any(bytes(name).lower() == b"x-request-id" for name, _ in headers):
            _, _, request_id = raw_correlation(self.raw_headers)
            if request_id is None:
                request_id = self.row_id()
            headers.append((b"x-request-id", request_id.encode()))
        return {**message, "headers": headers}


def outcome_of_status(status: int | None) -> str:
    """Sort the status of a whole response."""
    if status is None or status < _FIRST_VALID:
        return UNKNOWN
    if status < _FIRST_CLIENT_ERROR:
        return OK
    if status in _DENIALS:
        return DENIED
    if status < _FIRST_SERVER_ERROR:
        return CLIENT_ERROR
    return SERVER_ERROR if status < _FIRST_INVALID else UNKNOWN


_OUTCOME_OF_STATUS = {
    status: outcome_of_status(status) for status in (None, *range(_FIRST_VALID, _FIRST_INVALID))
}


def number(status: object) -> int | None:
    """http.HTTPStatus is an int; a str that a careless application sends may hold one."""
    try:
        return int(status)  # type: ignore[call-overload, no-any-return]  # anything may stand here
    except (TypeError, ValueError):
        return None


def _content_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name.lower() in {b"content-type", b"content-encoding"}:
            found[name.lower()] = value.decode("latin-1")
    return found.get(b"content-type"), found.get(b"content-encoding")
