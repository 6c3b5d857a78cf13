"""`auditlog policy …`: what a policy says about a request, without making one."""

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from auditlog.capture.policy import Policy
from auditlog.capture.policy.explanation import Explanation
from auditlog.capture.policy.file import load_policy
from auditlog.capture.rpc.status import outcome_of
from auditlog.capture.web.http import outcome_of_status
from auditlog.cli.failures import EXIT_CODES
from auditlog.cli.options import AsJson
from auditlog.cli.output import put, put_json, put_table
from auditlog.records import Protocol


class ProtocolName(StrEnum):
    """What a request came by."""

    HTTP = "http"
    GRPC = "grpc"
    GRAPHQL = "graphql"


_OUTCOMES = {
    ProtocolName.HTTP: outcome_of_status,
    ProtocolName.GRPC: outcome_of,
    ProtocolName.GRAPHQL: outcome_of_status,
}

app = typer.Typer(help="Look into the policy.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Look into the policy."""


@app.command(epilog=EXIT_CODES)
def explain(
    method: Annotated[str, typer.Argument(help="GET, POST, ...", metavar="METHOD")],
    path: Annotated[
        str, typer.Argument(help="The path, like /users/42 or /shop.Orders/Get.", metavar="PATH")
    ],
    *,
    protocol: Annotated[
        ProtocolName, typer.Option(help="For grpc, METHOD is the last part of PATH.")
    ] = ProtocolName.HTTP,
    status: Annotated[
        int | None, typer.Option(help="The status of the answer; for grpc, 0 to 16.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="The user; '' for nobody.")] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant; '' for none.")] = None,
    route: Annotated[str | None, typer.Option(help="The template, like /users/{id}.")] = None,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            envvar="AUDITLOG_POLICY_FILE",
            help="A TOML file; the default policy without one.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which rule applies to a request, and what would be stored of it.

    What is not given counts as not known yet; rules that ask for it may apply.
    """
    rules = Policy() if policy is None else load_policy(policy)
    explanation = rules.explain(
        Protocol[protocol.name],
        *_as_seen(protocol, method, path, route),
        status,
        None if status is None else _OUTCOMES[protocol](status),
        user,
        tenant,
    )
    if as_json:
        put_json(_fields(explanation))
    else:
        _show(explanation)


def _as_seen(
    protocol: ProtocolName, method: str, path: str, route: str | None
) -> tuple[str, str, str | None]:
    """Return method, path and route as the policy is told them."""
    if protocol is ProtocolName.GRPC:
        return method, path, path if route is None else route
    return method.upper(), path.partition("?")[0], route


def _fields(explanation: Explanation) -> dict[str, object]:
    fields = dataclasses.asdict(explanation)
    fields["level"] = explanation.level.name.lower()
    fields["certain"] = explanation.certain
    for rule in fields["rules"]:
        rule["level"] = rule["level"].name.lower()
    return fields


def _show(explanation: Explanation) -> None:
    if explanation.rules:
        put_table(
            ("rule", "level", "verdict", "why"),
            (
                (report.rule, report.level.name.lower(), report.verdict, report.reason)
                for report in explanation.rules
            ),
        )
    decided_by = f"rule {explanation.rule!r}" if explanation.rule else "the default"
    if explanation.received:
        put(f"a row when the request begins (rule {explanation.received!r}), and one at its end")
    unless = "" if explanation.certain else "; but see the rules that may apply"
    put(f"{explanation.level.name.lower()} ({decided_by}{unless})")
    for line in explanation.stored or ("nothing is stored",):
        put(f"  {line}")
