"""A client of graphql-transport-ws and of graphql-ws, which differ in the names of messages."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from serving import TIMEOUT_S, Client
from websockets.exceptions import ConnectionClosed

MODERN, LEGACY = "graphql-transport-ws", "graphql-ws"
_ENDS = {"complete", "error"}


class Talk:
    """One connection."""

    def __init__(self, connection: Any, subprotocol: str) -> None:
        self.connection = connection
        self.is_modern = subprotocol == MODERN
        self._send(type="connection_init", payload={})
        assert self._receive()["type"] == "connection_ack"

    def start(self, query: str, *, id: str = "1", **variables: Any) -> None:  # noqa: A002
        """Start an operation."""
        payload = {"query": query, "variables": variables}
        self._send(id=id, type="subscribe" if self.is_modern else "start", payload=payload)

    def stop(self, id: str = "1") -> None:  # noqa: A002
        """Ask for no more results."""
        self._send(id=id, type="complete" if self.is_modern else "stop")

    def next(self) -> Any:
        """Wait for a result."""
        message = self._receive()
        assert message["type"] == ("next" if self.is_modern else "data"), message
        return message["payload"]

    def rest(self) -> str:
        """Wait for the end of an operation, and tell how it came, or how the connection ended."""
        try:
            while True:
                message = self._receive()
                if message["type"] in _ENDS:
                    return str(message["type"])
        except ConnectionClosed:
            return "closed"

    def _send(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def _receive(self) -> Any:
        while True:
            message = json.loads(self.connection.recv(TIMEOUT_S))
            if message["type"] not in {"ka", "ping"}:
                return message


@contextmanager
def talking(client: Client, subprotocol: str) -> Iterator[Talk]:
    """Open a connection and shake hands."""
    with client.socket(subprotocol) as connection:
        yield Talk(connection, subprotocol)
