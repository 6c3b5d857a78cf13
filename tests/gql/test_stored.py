"""GraphQL rows in a real database."""

from typing import Any

import pytest
from ariadne_app import graphql_app
from in_process import post
from strawberry_app import graphql_app as strawberry_app

from auditlog import AuditLog, AuditMiddleware, Level, Policy, Protocol, Rule
from trail import quick, rows

RULE = Rule(name="bodies", level=Level.BODY, protocols=(Protocol.GRAPHQL,))


@pytest.mark.parametrize("app", [strawberry_app, graphql_app], ids=["strawberry", "ariadne"])
async def test_operations_are_stored(any_dsn: str, app: Any) -> None:
    """A batch, a failure and variables, as SQL sees them."""
    async with AuditLog(any_dsn, settings=quick()) as audit:
        middleware = AuditMiddleware(app, audit=audit, policy=Policy([RULE]))
        await post(middleware, [{"query": '{ who(name: "a") }'}, {"query": "{ refuse }"}])
        await post(
            middleware,
            "mutation L($u: String!, $p: String!) { login(user: $u, password: $p) }",
            variables={"u": "ada", "p": "x", "password": "hunter2"},
        )
    first, second, login = rows(any_dsn)
    assert [each["protocol"] for each in (first, second, login)] == [3, 3, 3]
    assert (first["user_id"], first["metadata"]["graphql.batch.index"]) == ("a", 0)
    assert second["metadata"]["audit.parent_id"] == first["log_id"]
    assert second["metadata"]["audit.outcome"] == "denied"
    assert second["metadata"]["graphql.errors"] == [{"path": ["refuse"], "type": "PermissionError"}]
    assert login["metadata"]["graphql.operation.name"] == "L"
    assert login["metadata"]["graphql.variables"] == {
        "u": "ada",
        "p": "x",
        "password": "[REDACTED]",
    }
    assert "audit.repaired" not in login["metadata"]
