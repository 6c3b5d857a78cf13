"""An HTTP request or a WebSocket in flight: the scope and the two channels, which both have.

A protocol's part watches the messages that pass, and changes none of them.
"""

import time
from typing import Final
from urllib.parse import quote

from auditlog.capture.exchange import Exchange
from auditlog.capture.shared import Capture
from auditlog.capture.web.asgi_types import Message, Receive, Scope, Send
from auditlog.capture.web.route import route_template
from auditlog.reporting import describe

HTTP: Final = 1
# Raised by frameworks when they see that the client is gone, which is no fault of theirs.
_DISCONNECTS = frozenset({"ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect"})


class AsgiExchange(Exchange):
    """What HTTP and WebSocket exchanges share: the scope, and the two channels."""

    __slots__ = ("_query", "_raw_path", "_receive", "_root_path", "disconnected", "server")

    protocol = HTTP
    route_key = "http.route"
    server: Send
    """Takes what is sent; something may stand in for it."""

    def __init__(
        self, capture: Capture, scope: Scope, receive: Receive, send: Send, method: str
    ) -> None:
        headers = scope.get("headers") or ()
        Exchange.__init__(self, capture, scope, method, scope.get("path", ""), headers)
        self._receive = receive
        self.server = send
        # Kept as they came: mounts and rewriting middlewares change the scope on the way in.
        self._root_path = scope.get("root_path") or ""
        self._raw_path = scope.get("raw_path")
        self._query = scope.get("query_string") or b""
        self.disconnected = False

    def route(self) -> str | None:
        """The template of the route that served it."""
        return route_template(self.source, self._root_path)

    def target(self) -> str:
        """Path and query as they were sent, secrets redacted."""
        path = self._raw_path or quote(self.path, errors="replace").encode()
        return self.capture.redactor.target(path, self._query)

    def knows_user(self) -> bool:
        """Starlette's AuthenticationMiddleware and its like leave the user in the scope."""
        return "user" in self.source

    def peer(self) -> str | None:
        """Return the host of `client`; a Unix socket has none."""
        client = self.source.get("client")
        return client[0] if client else None

    def note_error(self, error: BaseException) -> None:
        """Keep the type of what the application raised, unless it only says the client left."""
        name = type(error).__name__
        if not (self.disconnected and name in _DISCONNECTS):
            self.error_type = name

    async def receive(self) -> Message:
        """Pass a message to the application."""
        raise NotImplementedError

    def outgoing(self) -> Send:
        """The `send` for the application."""
        raise NotImplementedError

    def mark_end(self) -> None:
        """Take note that the client can have its whole answer."""
        if not self.ended_ns:
            self.ended_ns = time.perf_counter_ns()

    def refusal(self, detail: str, retry_after_s: int | None) -> list[Message]:
        """Return the messages that refuse what is to be recorded and cannot be."""
        raise NotImplementedError

    def note_unreadable(self, failure: Exception) -> None:
        """Say that a message passed of which the row lacks what it told."""
        self.capture.recorder.reporter.report(
            "auditlog.message_unreadable",
            f"a message that is not ASGI passed, its row may lack details: {describe(failure)}",
        )
