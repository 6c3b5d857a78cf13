"""`auditlog policy explain`, for each protocol in its own words."""

import json
from typing import Any

from typer.testing import CliRunner

from auditlog.cli.app import app


def explained(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["policy", "explain", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    explanation: dict[str, Any] = json.loads(result.stdout)
    return explanation


def test_grpc_status_is_a_code_of_its_own() -> None:
    """0 is fine, and 1 is how a client ends a stream."""
    check = ("Check", "/grpc.health.v1.Health/Check", "--protocol", "grpc", "--status")
    assert explained(*check, "0")["rule"] == "grpc-health-checks"
    assert explained(*check, "14")["rule"] is None
    watch = ("Watch", "/grpc.health.v1.Health/Watch", "--protocol", "grpc", "--status", "1")
    assert explained(*watch)["rule"] == "grpc-streams-of-tools"


def test_grpc_methods_keep_their_case() -> None:
    """Those of HTTP are upper case, however they are typed."""
    found = explained("Check", "/grpc.health.v1.Health/Check", "--protocol", "grpc")
    assert found["certain"] is False, "what is left out depends on the outcome"
    assert explained("get", "/health", "--status", "200")["rule"] == "health-checks"
