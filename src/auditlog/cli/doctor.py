"""`auditlog doctor`: what is wrong with the database or the settings, and what mends it."""

import dataclasses
import os
from collections.abc import Sequence

import typer
from rich.text import Text

from auditlog.cli.environment import check_environment
from auditlog.cli.failures import Exit
from auditlog.cli.options import AsJson, Dsn, opened
from auditlog.cli.output import put_json, say, stdout
from auditlog.cli.spool_check import check_spool
from auditlog.postgres.doctor import Finding, diagnose
from auditlog.settings import PREFIX

_MARKS = {"ok": ("ok  ", "green"), "warning": ("warn", "yellow"), "failed": ("FAIL", "bold red")}


def doctor(dsn: Dsn = None, as_json: AsJson = False) -> None:
    """Look at everything that storing rows relies on, and say how to mend what is wrong."""
    target, server = opened(dsn)
    findings = [
        *diagnose(target),
        *check_spool(os.environ.get(f"{PREFIX}SPOOL_DIR")),
        *check_environment(os.environ),
    ]
    if as_json:
        put_json([dataclasses.asdict(finding) for finding in findings])
    else:
        _show(findings)
        if server:
            say(f"To look inside, while the application runs:\n  {server.psql_command}")
    failed = [finding for finding in findings if finding.state == "failed"]
    if failed:
        say(f"{len(failed)} of {len(findings)} checks failed.")
        unreachable = failed[0].name == "connection"
        raise typer.Exit(Exit.NO_DATABASE if unreachable else Exit.NOT_WELL)


def _show(findings: Sequence[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark, style = _MARKS[finding.state]
        line = Text.assemble((mark, style), f"  {finding.name:{width}}  {finding.detail}")
        stdout().print(line, soft_wrap=True)
        if finding.remedy:
            stdout().print(Text(f"{'':{width + 8}}to mend it: {finding.remedy}"), soft_wrap=True)
