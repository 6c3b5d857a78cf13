"""Ariadne: an extension for its HTTP handler, and handlers that see more than an extension can.

`AuditExtension` records queries and mutations: `GraphQLHTTPHandler(extensions=[AuditExtension])`.
Ariadne gives extensions no request, so that one learns the document from the first field that is
resolved, or from the first error. `AuditHTTPHandler` knows it from the beginning. Subscriptions
pass no extension: `AuditTransportWSHandler` and `AuditWSHandler` record them. All of it inside an
`AuditMiddleware`; nothing is done outside an audited request.
"""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ariadne.asgi.handlers import GraphQLHTTPHandler, GraphQLTransportWSHandler, GraphQLWSHandler
from ariadne.types import Extension
from graphql import GraphQLError

from auditlog.capture.graphql.operation import Operation
from auditlog.capture.graphql.running import (
    begin,
    end,
    join,
    leave,
    note_errors,
    report,
    running,
    stop,
    withdraw,
)


class AuditExtension(Extension):
    """Record every query and mutation that the HTTP handler executes, on WebSockets too."""

    def __init__(self) -> None:
        self._operation: Operation | None = None
        self._is_own = False

    def request_started(self, context: Any) -> None:  # noqa: ARG002  # as Ariadne calls it
        """Begin before anything is parsed, unless a handler has begun already."""
        self._operation = join()
        if self._operation is None:
            self._operation = begin(None, None, None, None)
            self._is_own = self._operation is not None
        if self._operation is None or self._operation.facts_of_document is not None:
            # Nothing is left to be learned from resolvers, so they are not wrapped.
            self.resolve = None  # type: ignore[method-assign, assignment]  # graphql-core allows it

    def resolve(self, next_: Callable[..., Any], obj: Any, info: Any, **kwargs: Any) -> Any:
        """Learn from the first field what is executed."""
        operation = self._operation
        if operation is not None and operation.execution is None:
            operation.execution = info
            _learn_from_field(operation, info)
        return next_(obj, info, **kwargs)

    def has_errors(self, errors: list[GraphQLError], context: Any) -> None:  # noqa: ARG002  # likewise
        """Take the errors, before they are formatted."""
        if self._operation is not None:
            _note(self._operation, errors)

    def request_finished(self, context: Any) -> None:  # noqa: ARG002  # likewise
        """End what it has begun."""
        if self._operation is not None and self._is_own:
            end(self._operation, None)


class AuditHTTPHandler(GraphQLHTTPHandler):
    """Executes queries and mutations with an `AuditExtension` that knows what is asked for."""

    async def execute_graphql_query(self, request: Any, data: Any, **options: Any) -> Any:
        """Execute one operation."""
        with _handling(data):
            return await super().execute_graphql_query(request, data, **options)

    async def get_extensions_for_request(self, request: Any, context: Any) -> Any:
        """Add the extension to the others."""
        others = await super().get_extensions_for_request(request, context)
        return [AuditExtension, *(others or ())]


class _AuditSocketHandler:
    """What the handlers of both protocols have in common."""

    error_formatter: Any

    def configure(self, *args: Any, **options: Any) -> None:
        """Listen to the errors: every one is formatted, for the client."""
        super().configure(*args, **options)  # type: ignore[misc]  # the handler beside it has one
        self.error_formatter = _listening(self.error_formatter)

    async def _observe(
        self, operation: Operation | None, stream: Any, observe: Callable[[Any], Any]
    ) -> None:
        """Run an operation to its end, in a task of its own, and count its results."""
        if operation is None:
            await observe(stream)
            return
        try:
            await observe(_Counted(stream, operation))
        except BaseException as error:
            end(operation, error)
            raise
        end(operation, None)


class AuditTransportWSHandler(_AuditSocketHandler, GraphQLTransportWSHandler):
    """Records the operations of graphql-transport-ws."""

    async def handle_websocket_subscribe(
        self, websocket: Any, data: Any, operation_id: str, client_context: Any
    ) -> None:
        """Start an operation."""
        with _handling(data):
            await super().handle_websocket_subscribe(websocket, data, operation_id, client_context)

    def observe_async_results(
        self, websocket: Any, results_producer: Any, operation_id: str, client_context: Any
    ) -> Coroutine[Any, Any, None]:
        """Send the results of an operation."""
        observe = super().observe_async_results
        return self._observe(
            _hand_over(results_producer),
            results_producer,
            lambda stream: observe(websocket, stream, operation_id, client_context),
        )

    async def stop_websocket_operation(
        self, websocket: Any, operation_id: str, client_context: Any
    ) -> None:
        """Stop an operation, as its client asks, or because the connection has ended."""
        stopped = client_context.operations.get(operation_id)
        operation = stop(stopped.generator) if stopped is not None else None
        await super().stop_websocket_operation(websocket, operation_id, client_context)
        if operation is not None:
            # A task that is cancelled before its first step ends nothing.
            end(operation, None)


class AuditWSHandler(_AuditSocketHandler, GraphQLWSHandler):
    """Records the operations of graphql-ws, the protocol of subscriptions-transport-ws."""

    async def process_single_message(
        self, websocket: Any, data: Any, operation_id: str, operations: Any
    ) -> None:
        """Start an operation."""
        with _handling(data):
            await super().process_single_message(websocket, data, operation_id, operations)

    def observe_async_results(
        self, websocket: Any, results: Any, operation_id: str
    ) -> Coroutine[Any, Any, None]:
        """Send the results of an operation."""
        observe = super().observe_async_results
        return self._observe(
            _hand_over(results), results, lambda stream: observe(websocket, stream, operation_id)
        )

    async def stop_websocket_operation(self, websocket: Any, operation: Any) -> None:
        """Stop an operation, as its client asks; its stream then ends like any other."""
        stop(operation.generator)
        await super().stop_websocket_operation(websocket, operation)


class _Counted:
    """The results of an operation, counted as they are taken."""

    __slots__ = ("_operation", "_take")

    def __init__(self, stream: Any, operation: Operation) -> None:
        self._operation = operation
        self._take = aiter(stream).__anext__

    def __aiter__(self) -> "_Counted":
        return self

    async def __anext__(self) -> Any:
        try:
            result = await self._take()
        except Exception as error:
            # The handler sends one more result that says so.
            if not isinstance(error, StopAsyncIteration):
                self._operation.note_result(failed=True)
            raise
        self._operation.note_result(failed=bool(getattr(result, "errors", None)))
        return result


@contextmanager
def _handling(data: Any) -> Iterator[None]:
    """Begin the operation that a handler is given, and end it unless a task of its own does."""
    asked = data if isinstance(data, dict) else {}
    operation = begin(
        asked.get("query"), asked.get("operationName"), asked.get("variables"),
        asked.get("extensions"),
    )  # fmt: skip
    if operation is None:
        yield
        return
    operation.joinable = True
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception):
            note_errors(operation, [error], _judge)
        end(operation, error)
        raise
    if operation.handed_over:
        leave(operation)
    elif operation.joinable and not (operation.errors or operation.may_subscribe):
        # A query whose result no extension has seen: it may have failed.
        withdraw(operation)
    else:
        end(operation, None)


def _hand_over(stream: Any) -> Operation | None:
    """Return the operation at hand, if the task that takes its results is to end it."""
    operation = running()
    if operation is None or (operation.joinable and not operation.may_subscribe):
        return None
    operation.handed_over = True
    operation.stream = stream
    return operation


def _listening(error_formatter: Callable[..., Any]) -> Callable[..., Any]:
    def format_error(error: GraphQLError, *rest: Any, **options: Any) -> Any:
        operation = running()
        # That the client has left, which sending a result then tells, is no error of its own.
        if operation is not None and not operation.parent.disconnected:
            _note(operation, [error])
        return error_formatter(error, *rest, **options)

    return format_error


def _learn_from_field(operation: Operation, info: Any) -> None:
    try:
        definition = info.operation
        name = definition.name.value if definition.name else None
        if definition.loc is not None:  # it has none where it was built in Python
            operation.learn(definition.loc.source.body, name)
        if operation.variables is None:
            # As they were sent; graphql-core before 3.3 has only what they were coerced to.
            sources = getattr(info.variable_values, "sources", None) or {}
            operation.variables = {name: source.value for name, source in sources.items()}
    except Exception as failure:  # noqa: BLE001  # never an error of the operation
        report(operation, failure)


def _note(operation: Operation, errors: Sequence[GraphQLError]) -> None:
    note_errors(operation, errors, _judge)
    try:
        if operation.query is None and errors:
            error = errors[0]
            text = error.source.body if error.source else None
            operation.learn(text, None)
    except Exception as failure:  # noqa: BLE001  # never an error of the operation
        report(operation, failure)


def _judge(_error: BaseException) -> None:
    """Ariadne raises nothing of its own."""
