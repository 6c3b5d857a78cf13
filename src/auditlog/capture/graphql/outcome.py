"""Errors of a result → how the operation ended: who is to blame, by code, cause and place.

An error without a path is one of the request: the document does not parse, is not valid, or its
variables do not fit (GraphQL specification, section 7.1.2), so the client is to blame. One with a
path comes from a resolver, so the server is, unless a code or the kind of exception says otherwise.
Kept are paths, codes and classes, never messages: they quote what users wrote.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from graphql import GraphQLError

from auditlog.capture.outcomes import (
    CANCELLED,
    CLIENT_DISCONNECT,
    CLIENT_ERROR,
    DEADLINE,
    DENIED,
    INCOMPLETE,
    OK,
    SERVER_ERROR,
    UNKNOWN,
)

Judge: TypeAlias = Callable[[BaseException], str | None]
"""What a library knows of its own exceptions: an outcome, or None."""

DENIALS: Final = frozenset(
    {
        "ACCESS_DENIED",
        "FORBIDDEN",
        "NOT_AUTHENTICATED",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
    }
)
"""Codes that deny; so does every code with UNAUTHORIZED in it."""
CLIENT_ERRORS: Final = frozenset(
    {
        "ALREADY_EXISTS",
        "BAD_REQUEST",
        "BAD_USER_INPUT",
        "CONFLICT",
        "FAILED_PRECONDITION",
        "GRAPHQL_PARSE_FAILED",
        "GRAPHQL_VALIDATION_FAILED",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OPERATION_RESOLUTION_FAILURE",
        "PERSISTED_QUERY_NOT_FOUND",
        "PERSISTED_QUERY_NOT_SUPPORTED",
        "RATE_LIMITED",
        "TOO_MANY_REQUESTS",
        "VALIDATION_ERROR",
    }
)
"""Apollo's codes, and the usual names of what HTTP calls 4xx. Any other is the server's."""

_RANKS = {
    outcome: rank
    for rank, outcome in enumerate(
        (
            OK,
            CLIENT_ERROR,
            UNKNOWN,
            CLIENT_DISCONNECT,
            CANCELLED,
            DEADLINE,
            INCOMPLETE,
            DENIED,
            SERVER_ERROR,
        )
    )
}
_CODE = re.compile(r"[\w.:/ -]{1,64}", re.ASCII)
_MAX_PATH_LENGTH = 32
_MAX_KEY_CHARS = 128
_MAX_CAUSES = 8


class NotedError(NamedTuple):
    """What is kept of an error."""

    outcome: str
    type: str
    code: str | None
    path: list[str | int] | None

    def described(self) -> dict[str, Any]:
        """Return it as it is stored."""
        described: dict[str, Any] = {} if self.path is None else {"path": self.path}
        if self.code is not None:
            described["code"] = self.code
        described["type"] = self.type
        return described


def worst(*outcomes: str) -> str:
    """Return the outcome that matters most."""
    return max(outcomes, key=_RANKS.__getitem__)


def note(error: BaseException, judge: Judge) -> NotedError:
    """Judge an error: a GraphQLError, or an exception that left the execution."""
    code, path, cause = _code(error), _path(error), _cause(error)
    outcome = _outcome_of_code(code) or judge(cause) or _outcome_of_cause(error, cause)
    return NotedError(outcome, type(cause).__name__, code, path)


def unread(error: BaseException) -> NotedError:
    """Judge an error that cannot be read: the application made it, so it is the server's."""
    return NotedError(SERVER_ERROR, type(error).__name__, None, None)


def _code(error: BaseException) -> str | None:
    extensions = getattr(error, "extensions", None)
    code = extensions.get("code") if isinstance(extensions, Mapping) else None
    return code if isinstance(code, str) and _CODE.fullmatch(code) else None


def _path(error: BaseException) -> list[str | int] | None:
    path = getattr(error, "path", None)
    if not isinstance(path, list | tuple):
        return None
    return [
        key if isinstance(key, int) else str(key)[:_MAX_KEY_CHARS]
        for key in path[:_MAX_PATH_LENGTH]
    ]


def _cause(error: BaseException) -> BaseException:
    """Return what was raised first: graphql-core wraps it, sometimes more than once."""
    for _ in range(_MAX_CAUSES):
        inner = error.original_error if isinstance(error, GraphQLError) else None
        if not isinstance(inner, BaseException):
            break
        error = inner
    return error


def _outcome_of_code(code: str | None) -> str | None:
    if code is None:
        return None
    code = code.upper().replace("-", "_").replace(" ", "_")
    if code in DENIALS or "UNAUTHORIZED" in code:
        return DENIED
    return CLIENT_ERROR if code in CLIENT_ERRORS else SERVER_ERROR


def _outcome_of_cause(error: BaseException, cause: BaseException) -> str:
    # That of the operating system has a number: the server may not read its own file.
    if isinstance(cause, PermissionError) and cause.errno is None:
        return DENIED
    if not isinstance(error, GraphQLError) or error.path is not None:
        return SERVER_ERROR
    # What a document or a variable is refused for is at a place of the document, even where a
    # scalar of the application refused it. Other exceptions broke what surrounds it.
    refused = isinstance(cause, GraphQLError) or error.nodes or error.source
    return CLIENT_ERROR if refused else SERVER_ERROR
