"""`AuditExtension` for Strawberry: `strawberry.Schema(Query, extensions=[AuditExtension])`.

Strawberry makes an extension for every operation and runs it around parsing, validation and
execution; the schema's view has to be inside an `AuditMiddleware`. Nothing of an operation changes
by it, and nothing is done outside an audited request.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from strawberry.exceptions import MissingQueryError, StrawberryInputCoercionError
from strawberry.extensions import SchemaExtension
from strawberry.permission import BasePermission
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionContext
from strawberry.types.execution import PreExecutionError

from auditlog.capture.graphql.operation import Operation
from auditlog.capture.graphql.running import begin, end, note_errors, report, running
from auditlog.capture.outcomes import CLIENT_ERROR, DENIED

_CLIENT_ERRORS = (
    CannotGetOperationTypeError,
    InvalidOperationTypeError,
    MissingQueryError,
    StrawberryInputCoercionError,
)


class AuditExtension(SchemaExtension):
    """Record every operation of a schema."""

    _counts = True

    def on_operation(self) -> Iterator[None]:
        """Begin before anything is parsed, end when all is done."""
        # The extension's own context is another's soon, where an instance serves all operations.
        context = self.execution_context
        operation = begin(
            context.query, None, context.variables, getattr(context, "operation_extensions", None)
        )
        # What runs on within another operation, or is listed twice, is not that one's to count.
        self._counts = operation is not None
        if operation is None:
            yield
            return
        operation.execution = context
        operation.look = partial(_look, operation, context)
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception):
                note_errors(operation, [error], judge)
            end(operation, error)
            raise
        end(operation, None)

    def on_stream_result(self, result: Any) -> Iterator[None]:
        """Count a result of a subscription, or of whatever runs on a WebSocket."""
        operation = running() if self._counts else None
        if operation is not None and operation.execution is not None:
            errors = getattr(result, "errors", None)
            if errors:
                # As they were before another extension masked them.
                note_errors(operation, operation.execution.pre_execution_errors or errors, judge)
            operation.streamed = True
            if isinstance(result, PreExecutionError):
                # It never ran. Some of Strawberry's handlers leave its end to the collector.
                end(operation, None)
            else:
                operation.note_result(failed=bool(errors))
        yield


def judge(error: BaseException) -> str | None:
    """Tell what Strawberry's own exceptions mean."""
    if isinstance(error, _CLIENT_ERRORS):
        return CLIENT_ERROR
    return DENIED if _is_refusal(error) else None


def _is_refusal(error: BaseException) -> bool:
    """A permission class raises an error like any other, unless it was given a code."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    refuse = BasePermission.on_unauthorized.__code__
    return traceback is not None and traceback.tb_frame.f_code is refuse


def _look(operation: Operation, context: ExecutionContext) -> None:
    """Take what is known at the end: other extensions may have found the document."""
    try:
        operation.ask(
            context.query or operation.query,
            context.operation_name,
            context.variables,
            getattr(context, "operation_extensions", None),
        )
        document = context.graphql_document
        if document is not None and document.loc is not None:
            operation.learn(document.loc.source.body, context.operation_name)
        if not operation.streamed:
            # Before another extension masked them; at the end the result has what is left of them.
            errors = context.pre_execution_errors or getattr(context.result, "errors", None)
            note_errors(operation, errors, judge)
    except Exception as failure:  # noqa: BLE001  # never an error of the operation
        report(operation, failure)
