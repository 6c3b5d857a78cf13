"""Where an operation begins and ends: what the extensions of the libraries call. Never raises.

An operation is the one that is being served (`current`) from its beginning to its end, so that
what its handlers say, in tasks and thread pools too, is said of it and not of another on the same
request. Outside an audited request, after its answer, and within an operation, nothing begins:
what a handler or a background task executes by itself is no request.
"""

from collections.abc import Iterable

from auditlog.capture.context import current
from auditlog.capture.exchange import Exchange
from auditlog.capture.graphql.carried import RequestOperations, SocketOperation, SocketOperations
from auditlog.capture.graphql.operation import Operation
from auditlog.capture.graphql.outcome import Judge
from auditlog.records import Protocol
from auditlog.reporting import describe

_HTTP = int(Protocol.HTTP)


def begin(query: object, name: object, variables: object, extensions: object) -> Operation | None:
    """Begin an operation in this context, and return it; None where none is to be recorded."""
    outer = current.get()
    if not isinstance(outer, Exchange) or outer.protocol != _HTTP:
        return None
    if outer.ended_ns and not _is_socket(outer):
        return None
    try:
        operation = _carried_by(outer).begin()
    except Exception as failure:  # noqa: BLE001  # never an error of the operation
        report(outer, failure)
        return None
    # From here on it has its row, whatever of it cannot be read.
    current.set(operation)
    try:
        operation.ask(query, name, variables, extensions)
        if type(operation) is SocketOperation and outer.capture.policy.announces:
            operation.announce()
    except Exception as failure:  # noqa: BLE001  # likewise
        report(outer, failure)
    return operation


def join() -> Operation | None:
    """Go on with the operation that a handler has begun for this extension, if there is one."""
    operation = current.get()
    if isinstance(operation, Operation) and operation.joinable:
        operation.joinable = False
        return operation
    return None


def running() -> Operation | None:
    """Return the operation that is being served in this context."""
    operation = current.get()
    return operation if isinstance(operation, Operation) else None


def note_errors(operation: Operation, errors: Iterable[BaseException] | None, judge: Judge) -> None:
    """Take the errors of a result."""
    try:
        if errors:
            operation.note_errors(errors, judge)
    except Exception as failure:  # noqa: BLE001  # errors hold what applications put into them
        report(operation, failure)


def leave(operation: Operation) -> None:
    """Make the carrier the one that is being served in this context."""
    # Not by token: a generator may be closed in another context than it began in, and what is
    # current there is not ours to replace.
    if current.get() is operation:
        current.set(operation.parent)


def end(operation: Operation, error: BaseException | None) -> None:
    """End it, by what left its execution, if anything did."""
    try:
        operation.end(error)
    except Exception as failure:  # noqa: BLE001  # never an error of the operation
        report(operation, failure)
    leave(operation)


def withdraw(operation: Operation) -> None:
    """Leave an operation out of which nothing is known."""
    operation.withdraw()
    leave(operation)


def stop(stream: object) -> Operation | None:
    """Note that the client of the WebSocket being served wants no more of a stream."""
    socket = current.get()
    if isinstance(socket, Exchange) and isinstance(socket.operations, SocketOperations):
        return socket.operations.stop(stream)
    return None


def report(exchange: Exchange, failure: Exception) -> None:
    """Say that something of an operation could not be read."""
    exchange.capture.recorder.reporter.report(
        "auditlog.operation_unreadable",
        f"a GraphQL operation could not be read, its row may lack details: {describe(failure)}",
    )


def _carried_by(exchange: Exchange) -> RequestOperations | SocketOperations:
    carried = exchange.operations
    if isinstance(carried, RequestOperations | SocketOperations):
        return carried
    made = SocketOperations(exchange) if _is_socket(exchange) else RequestOperations(exchange)
    exchange.operations = made
    return made


def _is_socket(exchange: Exchange) -> bool:
    return bool(exchange.source.get("type") == "websocket")
