"""Operations in HTTP requests."""

import json
from collections.abc import Callable
from typing import Any

from gql_scenario import CLIENT_ERROR, DENIED, OK, SERVER_ERROR, Expected, Scenario, row
from services import ARIADNE, EXTENSION, FASTAPI, STRAWBERRY
from serving import Client

BODIES = "/bodies"
ID = "9fd0e8e3" * 8
LOGIN = (
    "mutation Login($user: String!, $password: String!) { login(user: $user, password: $password) }"
)
UPLOAD = "mutation Up($file: Upload!, $note: String!) { upload(file: $file, note: $note) }"
SECRET = {"user": "ada", "password": "hunter2"}


def operation(
    title: str,
    query: str | None,
    outcome: str = OK,
    /,
    *,
    on: dict[str, Any] | None = None,
    send: dict[str, Any] | None = None,
    **expected: Any,
) -> Scenario:
    """One operation in a POST; `on` has what differs on the Ariadne ones, or on one of them."""

    def talk(client: Client) -> Any:
        return client.post(query, path=expected.get("url", "/graphql"), **(send or {}))

    expected.setdefault("query", query)
    return _scenario(title, talk, outcome, on or {}, expected)


def request(
    title: str,
    talk: Callable[[Client], Any],
    outcome: str = OK,
    /,
    *,
    on: Any = None,
    **expected: Any,
) -> Scenario:
    """One operation in some other request."""
    return _scenario(title, talk, outcome, on or {}, expected)


def _scenario(
    title: str, talk: Callable[[Client], Any], outcome: str, on: Any, expected: Any
) -> Scenario:
    expected = {"outcome": outcome, **expected}
    differing = {
        service: (row(**{**expected, **on.get("both", {}), **on.get(service, {})}),)
        for service in (ARIADNE, EXTENSION)
        if "both" in on or service in on
    }
    for service in (STRAWBERRY, FASTAPI):
        if service in on:
            differing[service] = (row(**{**expected, **on[service]}),)
    return Scenario(title, talk, (row(**expected),), differing)


def batch(client: Client) -> Any:
    query = "query Who($name: String!) { who(name: $name) }"
    return client.http(
        "POST", json=[{"query": query, "variables": {"name": name}} for name in "abc"]
    )


def in_batch(index: int, size: int, outcome: str = OK, **expected: Any) -> Expected:
    places = {"graphql.batch.index": index, "graphql.batch.size": size}
    return row(outcome, **expected, **places)


def upload(client: Client) -> Any:
    operations = {"query": UPLOAD, "variables": {"file": None, "note": "n"}}
    form = {"operations": json.dumps(operations), "map": '{"0": ["variables.file"]}'}
    files = {"0": ("a.txt", b"the secret content of the file")}
    return client.http("POST", BODIES, data=form, files=files)


def get(query: str, **parameters: str) -> Callable[[Client], Any]:
    return lambda client: client.http("GET", params={"query": query, **parameters})


def at(*path: Any, type: str, code: str | None = None) -> dict[str, Any]:  # noqa: A002
    """An error as it is stored."""
    return {"path": list(path), **({"code": code} if code else {}), "type": type}


# Ariadne answers 400 where there is no data.
BAD = {"both": {"status": 400}}
BROKEN = [at("fail", type="ValueError")]
ECHO = "query Q($t: String) { echo(text: $t) }"

SCENARIOS = [
    operation("query", "query Hi { hello }", name="Hi"),
    operation(
        "mutation", 'mutation M { login(user: "a", password: "a") }', type="mutation", name="M"
    ),
    operation(
        "one of several",
        'query A { hello } query B { who(name: "b") }',
        send={"operationName": "B"},
        name="B",
    ),
    operation("resolver fails", "{ fail }", SERVER_ERROR, errors=BROKEN, error__type="ValueError"),
    operation(
        "resolver fails where null is not allowed",
        "{ must }",
        SERVER_ERROR,
        on=BAD,
        errors=[at("must", type="ValueError")],
        error__type="ValueError",
    ),
    operation(
        "part of a list fails",
        "{ items(count: 30) { value } }",
        SERVER_ERROR,
        errors=[at("items", number, "value", type="LookupError") for number in range(1, 20, 2)],
        graphql__errors__count=15,
        error__type="LookupError",
    ),
    operation(
        "resolver denies by PermissionError",
        "{ refuse }",
        DENIED,
        errors=[at("refuse", type="PermissionError")],
        error__type="PermissionError",
    ),
    operation(
        "operating system denies to the server",
        "{ readFile }",
        SERVER_ERROR,
        errors=[at("readFile", type="PermissionError")],
        error__type="PermissionError",
    ),
    *[
        operation(
            f"code {code}",
            f'{{ coded(code: "{code}") }}',
            outcome,
            errors=[at("coded", code=code, type="GraphQLError")],
            error__type=code,
        )
        for code, outcome in {
            "UNAUTHENTICATED": DENIED,
            "FORBIDDEN": DENIED,
            "USER_UNAUTHORIZED": DENIED,
            "BAD_USER_INPUT": CLIENT_ERROR,
            "INTERNAL_SERVER_ERROR": SERVER_ERROR,
            "OUT_OF_LUCK": SERVER_ERROR,
        }.items()
    ],
    operation(
        "the worst wins",
        '{ refuse coded(code: "BAD_USER_INPUT") fail }',
        SERVER_ERROR,
        errors=[
            at("refuse", type="PermissionError"),
            at("coded", code="BAD_USER_INPUT", type="GraphQLError"),
            *BROKEN,
        ],
        error__type="ValueError",
    ),
    operation(
        "syntax error",
        "query Foo {",
        CLIENT_ERROR,
        on=BAD,
        name="Foo",
        errors=[{"type": "GraphQLSyntaxError"}],
        error__type="GraphQLSyntaxError",
    ),
    operation(
        "invalid",
        "{ nothing }",
        CLIENT_ERROR,
        on={"both": {"status": 400}},
        errors=[{"type": "GraphQLError"}],
        error__type="GraphQLError",
    ),
    operation(
        "variable that does not fit",
        "query N($value: Int!) { number(value: $value) }",
        CLIENT_ERROR,
        # The extension alone is told of an operation by its fields, of which none was resolved.
        on={"both": {"status": 400}, EXTENSION: {"graphql__variables": None, "name": "N"}},
        send={"variables": {"value": "x", "token": "t"}},
        url=BODIES,
        name="N",
        errors=[{"type": "GraphQLError"}],
        error__type="GraphQLError",
        audit__rule="bodies",
        graphql__variables={"value": "x", "token": "[REDACTED]"},
    ),
    operation(
        "unknown operation name",
        "query A { hello } query B { hello }",
        CLIENT_ERROR,
        # Strawberry answers with a status, and the extension learns from no error's place.
        on={
            "both": {"error__type": "GraphQLError", "errors": [{"type": "GraphQLError"}]},
            EXTENSION: {"query": None},
        },
        send={"operationName": "C"},
        status=400,
        type=None,
        errors=[{"type": "CannotGetOperationTypeError"}],
        error__type="CannotGetOperationTypeError",
    ),
    operation(
        "no document",
        None,
        CLIENT_ERROR,
        on={"both": {"error__type": "GraphQLError", "errors": [{"type": "GraphQLError"}]}},
        status=400,
        type=None,
        errors=[{"type": "MissingQueryError"}],
        error__type="MissingQueryError",
    ),
    operation(
        "variables by policy",
        LOGIN,
        # Of what is sent, the operation declares two; the extension alone sees these.
        on={EXTENSION: {"graphql__variables": {"user": "ada", "password": "[REDACTED]"}}},
        send={"variables": {**SECRET, "more": [1, {"api_key": "k"}]}},
        url=BODIES,
        type="mutation",
        name="Login",
        audit__rule="bodies",
        graphql__variables={
            "user": "ada",
            "password": "[REDACTED]",
            "more": [1, {"api_key": "[REDACTED]"}],
        },
    ),
    operation(
        "no variables without a policy",
        LOGIN,
        send={"variables": SECRET},
        type="mutation",
        name="Login",
    ),
    request(
        "upload",
        upload,
        query=UPLOAD,
        url=BODIES,
        type="mutation",
        name="Up",
        audit__rule="bodies",
        graphql__variables={"file": "<UploadFile>", "note": "n"},
    ),
    request(
        "query by GET",
        get(ECHO, variables='{"t":"a","password":"hunter2"}'),
        method="GET",
        query=ECHO,
        name="Q",
        url="/graphql?query=[REDACTED]&variables=[REDACTED]",
    ),
    request(
        "mutation by GET",
        get('mutation { login(user: "a", password: "hunter2") }'),
        CLIENT_ERROR,
        on={
            "both": {"error__type": "GraphQLError", "errors": [{"type": "GraphQLError"}]},
            EXTENSION: {"query": None, "type": None},
        },
        method="GET",
        query='mutation { login(user: "x", password: "y") }',
        type="mutation",
        status=400,
        url="/graphql?query=[REDACTED]",
        errors=[{"type": "InvalidOperationTypeError"}],
        error__type="InvalidOperationTypeError",
    ),
    operation(
        "persisted query that is registered",
        "{ hello }",
        on={EXTENSION: {"graphql__document__id": None}},
        send={"extensions": {"persistedQuery": {"version": 1, "sha256Hash": ID}}},
        graphql__document__id=ID,
    ),
    operation(
        "persisted query by its hash",
        None,
        on={EXTENSION: {"graphql__document__id": None}},
        send={"extensions": {"persistedQuery": {"version": 1, "sha256Hash": ID}}},
        query="{ hello }",
        graphql__document__id=ID,
    ),
    operation(
        "persisted query that is not found",
        None,
        CLIENT_ERROR,
        # Its text stands for one that is not there.
        on={
            ARIADNE: {"status": 400, "query": "unknown"},
            EXTENSION: {"status": 400, "graphql__document__id": None},
        },
        send={"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}},
        type=None,
        errors=[{"code": "PERSISTED_QUERY_NOT_FOUND", "type": "GraphQLError"}],
        error__type="PERSISTED_QUERY_NOT_FOUND",
        graphql__document__id="0" * 64,
    ),
    operation(
        "introspection",
        "query IntrospectionQuery { __schema { types { name } } }",
        name="IntrospectionQuery",
    ),
    Scenario(
        "batch",
        batch,
        tuple(
            in_batch(index, 3, query="query Who($name: String!) { who(name: $name) }", name="Who")
            for index in range(3)
        ),
    ),
    Scenario(
        "batch of which one fails",
        lambda client: client.http("POST", json=[{"query": "{ hello }"}, {"query": "{ fail }"}]),
        (
            in_batch(0, 2, query="{ hello }"),
            in_batch(1, 2, SERVER_ERROR, query="{ fail }", errors=BROKEN, error__type="ValueError"),
        ),
    ),
]
