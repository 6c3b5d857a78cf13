"""The operations that a request or a WebSocket carries, and the rows that come of them.

A request with one operation has one row, which is the operation's: what was said of either is in
it, under the request's `log_id`. With several, each has its own; the first has the request's
`log_id`, and the others name it in `audit.parent_id`. A WebSocket has a row of its own, which is
the parent of those of its operations; only the ones that run are held in memory.
"""

import time
from dataclasses import replace
from typing import Any, Final

from auditlog.capture.exchange import Exchange
from auditlog.capture.graphql.operation import Operation
from auditlog.capture.outcomes import CANCELLED, CLIENT_DISCONNECT, OK
from auditlog.capture.policy import Decision

COMPLETE: Final = "complete"
ERROR: Final = "error"
UNSUBSCRIBED: Final = "unsubscribed"
CONNECTION_CLOSED: Final = "connection_closed"


class RequestOperation(Operation):
    """An operation of an HTTP request; its row is written when the request has ended."""

    __slots__ = ("_siblings", "index")

    def __init__(self, parent: Exchange, siblings: "RequestOperations") -> None:
        Operation.__init__(self, parent)
        self._siblings = siblings
        self.index = len(siblings.all)

    def end(self, _error: BaseException | None) -> None:
        """Stop its clock."""
        self.look_once()
        if not self.ended_ns:
            self.ended_ns = time.perf_counter_ns()

    def withdraw(self) -> None:
        """Leave a row: the request has one in any case."""
        self.end(None)

    def row_id(self) -> str:
        """Return that of the request, for the first: it may turn out to be the only one."""
        return Operation.row_id(self) if self.index else self.parent.row_id()

    def conclude(self, _error: BaseException | None) -> None:
        """Take the status of the request, and what was said of it."""
        parent = self.parent
        # Whoever waits for the rows of the request waits for this one. First, as what may fail is
        # asked later: its row ends the request's received row even then.
        self.ticket = parent.ticket
        if not self.index:
            self.log_id, self.exchange_id = parent.log_id, parent.exchange_id
        self.look_once()
        self.status, self.status_source = parent.status, parent.status_source
        self.error_type, self.skipped = parent.error_type, self.skipped or parent.skipped
        self.conclude_from_errors(parent.outcome)
        if len(self._siblings.all) == 1:
            self.started_us, self.started_ns = parent.started_us, parent.started_ns
            self.ended_ns = parent.ended_ns
        _inherit(self, parent)

    def facts(self, headers: dict[str, list[str]] | None) -> dict[str, Any]:
        """Add its place in a batch."""
        metadata = Operation.facts(self, headers)
        size = len(self._siblings.all)
        if size > 1:
            metadata["graphql.batch.index"] = self.index
            metadata["graphql.batch.size"] = size
            if self.index:
                metadata["audit.parent_id"] = self.parent.row_id()
        return metadata

    def describe_wire(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add sizes, times and the response of the request."""
        if len(self._siblings.all) > 1:
            # The bodies are those of all, and to redact them takes 4 ms (2026-11-25).
            decision = replace(decision, matched=None)
        self.parent.describe(metadata, decision)
        # It quotes the document, with every value that somebody wrote into it.
        metadata.pop("audit.request_body", None)


class RequestOperations:
    """All operations of one request, in the order in which they began."""

    __slots__ = ("_request", "all")

    def __init__(self, request: Exchange) -> None:
        self._request = request
        self.all: list[RequestOperation] = []

    def begin(self) -> RequestOperation:
        """Make one more."""
        operation = RequestOperation(self._request, self)
        self.all.append(operation)
        return operation

    def submit(self) -> bool:
        """Submit them all, once, in place of the request's own row."""
        for operation in self.all:
            operation.finish(None)
        are_any = bool(self.all)
        self.all = []
        return are_any


class SocketOperation(Operation):
    """An operation on a WebSocket; its row is written when it is over."""

    __slots__ = ("_siblings", "cut_off", "interrupted")

    def __init__(self, parent: Exchange, siblings: "SocketOperations") -> None:
        Operation.__init__(self, parent)
        self._siblings = siblings
        self.cut_off = self.interrupted = False

    def end(self, error: BaseException | None) -> None:
        """Submit its row; or leave that to the connection, where it is the one that ended."""
        if self.ended_ns:
            return
        self.look_once()
        self.ended_ns = time.perf_counter_ns()
        # A task that is cancelled, or a generator that is closed.
        self.interrupted |= error is not None and not isinstance(error, Exception)
        # After the close, whoever sent it, nothing reaches the client.
        self.cut_off = bool(self.parent.ended_ns)
        if (not self.cut_off or self._siblings.are_submitted) and self._siblings.release(self):
            self.finish(None)

    def withdraw(self) -> None:
        """Leave no row."""
        self._siblings.release(self)

    def conclude(self, _error: BaseException | None) -> None:
        """Conclude from its errors, from who ended it, or from how the connection ended."""
        self.look_once()
        parent = self.parent
        self.status, self.status_source = parent.status, parent.status_source
        self.skipped = self.skipped or parent.skipped
        outcome = OK
        if self.cut_off:
            outcome = CLIENT_DISCONNECT if parent.outcome == OK else parent.outcome
        elif self.interrupted and not (self.may_subscribe or self.errors):
            outcome = CANCELLED
        self.conclude_from_errors(outcome)

    def facts(self, headers: dict[str, list[str]] | None) -> dict[str, Any]:
        """Add on whose connection it ran."""
        metadata = Operation.facts(self, headers)
        metadata["audit.parent_id"] = self.parent.row_id()
        return metadata

    def describe_wire(self, metadata: dict[str, Any], _decision: Decision) -> None:
        """Add who ended a subscription."""
        if self.subscribes:
            metadata["graphql.subscription.end"] = self._ending()

    def _ending(self) -> str:
        if self.failed_last and (self.results == 0 or not self.interrupted):
            return ERROR
        if self.cut_off:
            return CONNECTION_CLOSED
        return UNSUBSCRIBED if self.interrupted else COMPLETE


class SocketOperations:
    """The operations that run on one WebSocket."""

    __slots__ = ("_running", "_socket", "are_submitted")

    def __init__(self, socket: Exchange) -> None:
        self._socket = socket
        self.are_submitted = False
        """Has the connection its row? A task that outlives it may begin yet another operation."""
        self._running: dict[int, SocketOperation] = {}

    def begin(self) -> SocketOperation:
        """Make one more."""
        operation = SocketOperation(self._socket, self)
        self._running[id(operation)] = operation
        return operation

    def release(self, operation: SocketOperation) -> bool:
        """Forget one; tell whether it was still there."""
        return self._running.pop(id(operation), None) is not None

    def stop(self, stream: object) -> SocketOperation | None:
        """Note that the client wants no more results from a stream; return whose it is."""
        for operation in list(self._running.values()):
            if operation.stream is stream:
                operation.interrupted = True
                return operation
        return None

    def submit(self) -> bool:
        """Submit those that the end of the connection has cut off; it has a row of its own."""
        self.are_submitted = True
        for operation in list(self._running.values()):
            if self.release(operation):
                operation.cut_off = True
                operation.finish(None)
        return False


def _inherit(operation: Operation, parent: Exchange) -> None:
    """Let what was said of the request hold where nothing was said of the operation."""
    if operation.aggregate_type is None:
        operation.aggregate_type = parent.aggregate_type
        operation.aggregate_id = parent.aggregate_id
    if operation.event_type is None:
        operation.event_type = parent.event_type
    if operation.event_sequence is None:
        operation.event_sequence = parent.event_sequence
    if operation.message is None:
        operation.message = parent.message
    if operation.level is None:
        operation.level = parent.level
    if parent.metadata:
        operation.metadata = {**parent.metadata, **operation.metadata}
