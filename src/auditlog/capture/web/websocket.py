"""A WebSocket in flight: one row from the handshake to the close, counters instead of frames.

The status is the handshake's: 101 when accepted, the denial's when one was sent, 403 (derived)
when the application closed before accepting, as the ASGI specification makes the server answer.
How the connection ended is told by the close code and by whose it was (RFC 6455, section 7.4).
"""

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
from auditlog.capture.policy import Decision
from auditlog.capture.shared import Capture
from auditlog.capture.web.asgi_types import Message, Receive, Scope, Send
from auditlog.capture.web.exchange import AsgiExchange
from auditlog.capture.web.http import number, outcome_of_status
from auditlog.capture.web.refusal import TRY_AGAIN_LATER, scope_refusal

_SWITCHING_PROTOCOLS = 101
_FORBIDDEN = 403
_INTERNAL_ERROR = 500
_NO_CODE = 1005
_ABNORMAL = 1006
_RESTART = 1012
# Codes that only servers send (IANA): they tell an application of their own shutdown with them.
_SERVER_CODES = frozenset({_RESTART, TRY_AGAIN_LATER, 1014})
_MAX_REASON_CHARS = 128
_OUTCOME_OF_CODE = {
    1000: OK,
    1001: OK,
    1002: CLIENT_ERROR,
    1003: CLIENT_ERROR,
    _NO_CODE: OK,
    _ABNORMAL: CLIENT_DISCONNECT,
    1007: CLIENT_ERROR,
    1008: DENIED,
    1009: CLIENT_ERROR,
    1010: CLIENT_ERROR,
    1011: SERVER_ERROR,
    _RESTART: CANCELLED,
    TRY_AGAIN_LATER: SERVER_ERROR,
    1014: SERVER_ERROR,
    3000: DENIED,  # IANA: Unauthorized
    3003: DENIED,  # IANA: Forbidden
}


class WebSocketExchange(AsgiExchange):
    """One connection."""

    __slots__ = (
        "_accepted",
        "_close_code",
        "_close_reason",
        "_closed_by",
        "_frames_in",
        "_frames_out",
        "_subprotocol",
    )

    def __init__(self, capture: Capture, scope: Scope, receive: Receive, send: Send) -> None:
        # Every WebSocket of HTTP/1.1 begins as a GET; the scope has no method.
        AsgiExchange.__init__(self, capture, scope, receive, send, scope.get("method", "GET"))
        self._accepted = False
        self._subprotocol: str | None = None
        self._close_code: int | None = None
        self._close_reason: str | None = None
        self._closed_by: str | None = None
        self._frames_in = 0
        self._frames_out = 0

    async def receive(self) -> Message:
        """Pass a message to the application."""
        message = await self._receive()
        try:
            kind = message.get("type")
            if kind == "websocket.receive":
                self._frames_in += 1
                self.bytes_in += _payload_size(message)
            elif kind == "websocket.disconnect":
                code = message.get("code", _NO_CODE)
                by = "server" if self._accepted and code in _SERVER_CODES else "client"
                self._close(by, code, message.get("reason"))
                self.disconnected = True
        except Exception as failure:  # noqa: BLE001  # not a message, but not ours to refuse
            self.note_unreadable(failure)
        return message

    async def send(self, message: Message) -> None:
        """Pass a message to the server; what the server refuses is not counted as sent."""
        try:
            await self.server(message)
        except OSError:
            self.disconnected = True
            self._close("client", _ABNORMAL, None)
            raise
        try:
            self._note_sent(message)
        except Exception as failure:  # noqa: BLE001  # not a message, but the server took it
            self.note_unreadable(failure)

    def outgoing(self) -> Send:
        """The `send` for the application."""
        return self.send

    def refusal(self, detail: str, retry_after_s: int | None) -> list[Message]:
        """Return the messages that deny the handshake, or close what was accepted."""
        if self._accepted:
            return [{"type": "websocket.close", "code": TRY_AGAIN_LATER}]
        return scope_refusal(self.source, detail, retry_after_s)

    def conclude(self, error: BaseException | None) -> None:
        """Conclude from the close code, or from the lack of one."""
        if error is not None:
            self.note_error(error)
        if not self._accepted:
            self._conclude_handshake(error)
        elif self._close_code is not None:
            # What the application does after the close is no part of the connection.
            self.outcome = _OUTCOME_OF_CODE.get(self._close_code, UNKNOWN)
        elif error is not None:
            self.outcome = SERVER_ERROR if isinstance(error, Exception) else CANCELLED
        else:
            self.outcome = INCOMPLETE

    def describe(self, metadata: dict[str, Any], _decision: Decision) -> None:
        """Add how it ended and how much went through."""
        redactor = self.capture.redactor
        if self._subprotocol is not None:
            metadata["websocket.subprotocol"] = redactor.subprotocol(self._subprotocol)
        if self._close_code is not None:
            metadata["websocket.close_code"] = self._close_code
            metadata["websocket.closed_by"] = self._closed_by
        if self._close_reason:
            metadata["websocket.close_reason"] = redactor.text(self._close_reason)
        if self._accepted:
            metadata["websocket.frames_in"] = self._frames_in
            metadata["websocket.frames_out"] = self._frames_out
            metadata["websocket.bytes_in"] = self.bytes_in
            metadata["websocket.bytes_out"] = self.bytes_out

    def _note_sent(self, message: Message) -> None:
        kind = message.get("type")
        if kind == "websocket.send":
            self._frames_out += 1
            self.bytes_out += _payload_size(message)
        elif kind == "websocket.accept":
            self._accepted = True
            subprotocol = message.get("subprotocol")
            self._subprotocol = subprotocol if isinstance(subprotocol, str) else None
            self.status, self.status_source = _SWITCHING_PROTOCOLS, WIRE
        elif kind == "websocket.close":
            self._close("server", message.get("code", 1000), message.get("reason"))
        elif kind == "websocket.http.response.start":
            self.status, self.status_source = number(message.get("status")), WIRE
        elif kind == "websocket.http.response.body":
            self.bytes_out += len(message.get("body") or b"")
            if not message.get("more_body"):
                self.mark_end()

    def _conclude_handshake(self, error: BaseException | None) -> None:
        if self.status is not None:
            self.outcome = outcome_of_status(self.status)
        elif error is not None and not isinstance(error, Exception):
            self.outcome = CANCELLED
        elif self._closed_by == "server":
            self.status, self.status_source = _FORBIDDEN, DERIVED
            self.outcome = SERVER_ERROR if self.refused else DENIED
        elif self.disconnected:
            self.outcome = CLIENT_DISCONNECT
        else:
            self.status, self.status_source = _INTERNAL_ERROR, DERIVED
            self.outcome = SERVER_ERROR

    def _close(self, by: str, code: Any, reason: Any) -> None:
        """Keep the first close: the answer to it tells nothing new."""
        if self._closed_by is None:
            self._closed_by = by
            self._close_code = code if isinstance(code, int) else _NO_CODE
            self._close_reason = reason[:_MAX_REASON_CHARS] if isinstance(reason, str) else None
            self.mark_end()


def _payload_size(message: Message) -> int:
    data = message.get("bytes")
    if data is not None:
        return len(data)
    text = message.get("text") or ""
    # An ASCII text, which str knows without looking, has as many bytes as characters.
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
