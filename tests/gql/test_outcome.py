"""Who is to blame for an error: by its code, its cause, its place."""

from typing import Any

import pytest
from graphql import (
    GraphQLArgument,
    GraphQLError,
    GraphQLField,
    GraphQLInt,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    graphql_sync,
    located_error,
)
from graphql.language import Source

from auditlog.capture.graphql.outcome import _RANKS, note, worst
from auditlog.capture.outcomes import LEVEL_OF
from auditlog.records import RequestOutcome

CLIENT_ERROR, DENIED, SERVER_ERROR = "client_error", "denied", "server_error"


def noted(error: BaseException) -> Any:
    return note(error, lambda _: None)


def at_field(error: Exception) -> GraphQLError:
    return located_error(error, None, ["user", 0, "name"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (at_field(ValueError("x")), (SERVER_ERROR, "ValueError", None)),
        (at_field(GraphQLError("x")), (SERVER_ERROR, "GraphQLError", None)),
        (at_field(PermissionError("x")), (DENIED, "PermissionError", None)),
        (at_field(PermissionError(13, "x")), (SERVER_ERROR, "PermissionError", None)),
        (GraphQLError("x"), (CLIENT_ERROR, "GraphQLError", None)),
        (GraphQLError("x", original_error=KeyError("x")), (SERVER_ERROR, "KeyError", None)),
        (
            GraphQLError("x", source=Source("{a}"), original_error=ValueError("x")),
            (CLIENT_ERROR, "ValueError", None),
        ),
        (KeyError("x"), (SERVER_ERROR, "KeyError", None)),
        (PermissionError("x"), (DENIED, "PermissionError", None)),
        (
            at_field(GraphQLError("x", extensions={"code": "not-found"})),
            (CLIENT_ERROR, "GraphQLError", "not-found"),
        ),
        (
            GraphQLError("x", extensions={"code": "INTERNAL_SERVER_ERROR"}),
            (SERVER_ERROR, "GraphQLError", "INTERNAL_SERVER_ERROR"),
        ),
        (GraphQLError("x", extensions={"code": 404}), (CLIENT_ERROR, "GraphQLError", None)),
        (
            GraphQLError("x", extensions={"code": "no\nsuch ; code" * 9}),
            (CLIENT_ERROR, "GraphQLError", None),
        ),
    ],
)
def test_error_is_judged(error: BaseException, expected: tuple[str, str, str | None]) -> None:
    """The table."""
    found = noted(error)
    assert (found.outcome, found.type, found.code) == expected


def test_scalar_that_refuses_a_variable_blames_the_client() -> None:
    """Though the exception comes from the application's code."""

    def refuse(_: Any) -> Any:
        raise ValueError("odd")

    even = GraphQLScalarType("Even", parse_value=refuse)
    half = GraphQLField(GraphQLInt, args={"of": GraphQLArgument(GraphQLNonNull(even))})
    schema = GraphQLSchema(GraphQLObjectType("Query", {"half": half}))
    for document, variables in (
        ("query Q($n: Even!) { half(of: $n) }", {"n": 3}),
        ("{ half(of: 3) }", None),
    ):
        result = graphql_sync(schema, document, variable_values=variables)
        assert result.errors
        assert [noted(error).outcome for error in result.errors] == [CLIENT_ERROR]


def test_library_is_asked_after_the_code() -> None:
    """What it says of its own exceptions goes before what is usual."""
    error = at_field(KeyError("x"))
    assert note(error, lambda _: DENIED).outcome == DENIED
    error.extensions = {"code": "BAD_USER_INPUT"}
    assert note(error, lambda _: DENIED).outcome == CLIENT_ERROR


def test_paths_are_kept_in_bounds_and_messages_never() -> None:
    """A path holds aliases, which clients choose."""
    error = GraphQLError("hunter2", path=["a" * 1000, 7, *["b"] * 100])
    described = noted(error).described()
    assert described["path"][:2] == ["a" * 128, 7]
    assert len(described["path"]) == 32
    assert "hunter2" not in repr(described)


def test_every_outcome_has_its_rank() -> None:
    """So that `worst` knows them all."""
    assert set(_RANKS) == {str(outcome) for outcome in RequestOutcome} == set(LEVEL_OF)
    assert worst("ok", "denied", "client_error") == "denied"
    assert worst("client_disconnect", "server_error") == "server_error"
    assert worst("ok") == "ok"
