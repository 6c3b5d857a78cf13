"""Which message is the last: the one after which the client can have its whole answer.

That is not always the one that ends the response for ASGI. An answer to HEAD, or one whose length
is 0, is whole with its head; another one with the byte that makes its `Content-Length` full, though
an empty message may follow, as behind Starlette's `BaseHTTPMiddleware`, or trailers.
"""

from math import inf
from typing import Any

from auditlog.capture.web.asgi_types import Message, Scope

STARTS = frozenset({"http.response.start", "websocket.http.response.start"})
_BODIES = frozenset({"http.response.body", "websocket.http.response.body"})
_ENDS = frozenset({"http.response.pathsend", "websocket.close"})
_BODILESS = frozenset({204, 304})


class Ending:
    """Watches the messages of one answer, each before it is passed on."""

    __slots__ = ("_bytes_left", "_has_trailers", "_is_head", "_scope")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        # What the client asked for: the application may make a GET of it on the way in.
        self._is_head = scope.get("method") == "HEAD"
        self._has_trailers = False
        self._bytes_left = inf

    def is_last(self, message: Message) -> bool:
        """Tell whether nothing of the answer is missing once this one is passed on.

        Raises:
            Exception: it is not a message, or not as ASGI has it.
        """
        kind = message.get("type")
        if kind in _BODIES:
            self._bytes_left -= len(message.get("body") or b"")
            ends = not message.get("more_body") and not self._has_trailers
            return ends or self._bytes_left <= 0
        if kind in STARTS:
            return self._is_whole(message)
        if kind == "http.response.trailers":
            return not message.get("more_trailers")
        if kind == "http.response.zerocopysend":
            return not message.get("more_body") or self._is_filled(message.get("count"))
        return kind in _ENDS

    def _is_whole(self, start: Message) -> bool:
        if self._is_head or start.get("status") in _BODILESS:
            return True
        if start.get("trailers"):
            # A server that knows none has sent all with the last body.
            extensions = self._scope.get("extensions") or ()
            self._has_trailers = "http.response.trailers" in extensions
        headers = start.get("headers")
        # An iterator would be used up by a look at it.
        if type(headers) is list or type(headers) is tuple:
            self._bytes_left = _length(headers)
        return self._bytes_left <= 0

    def _is_filled(self, count: int | None) -> bool:
        """Take note of a part of a file; without a count it is all that is left of that."""
        if count is None:
            return self._bytes_left < inf
        self._bytes_left -= count
        return self._bytes_left <= 0


def _length(headers: Any) -> float:
    for name, value in headers:
        if name.lower() == b"content-length":
            return int(value)
    return inf
