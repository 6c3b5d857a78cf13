"""Plans and what became of them: for people, step by step, and as one document.

Names come from the catalog, and reasons from whoever placed a hold: no control character of theirs
gets to the terminal.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from auditlog.cli.failures import Exit
from auditlog.partitions.model import Finding, Operation, Outcome, Plan, TableReport
from auditlog.partitions.planning import LOCKS, WAITS_FOR

_UNDONE = ("failed", "refused", "waiting")


def verdict(reports: Iterable[TableReport]) -> Exit:
    """Return what the reports come to, as the exit code of a command."""
    reports = list(reports)
    if not all(map(is_well, reports)):
        return Exit.NOT_WELL
    return Exit.BUSY if any(report.is_busy for report in reports) else Exit.OK


def is_well(report: TableReport) -> bool:
    """Tell whether nothing went wrong, and nothing needs somebody."""
    findings = report.plan.findings if report.plan else ()
    return (
        report.error is None
        and not any(outcome.result in _UNDONE for outcome in report.outcomes)
        and not any(finding.severity == "human" for finding in findings)
    )


def lines_of_plans(reports: Iterable[TableReport]) -> Iterator[str]:
    """Yield each step with its lock, what it waits for and why; then what there is to know."""
    for report in reports:
        if report.plan is None:
            yield f"{report.table}: cannot be looked at: {report.error}"
            continue
        yield _heading(report.plan)
        for number, operation in enumerate(report.plan.operations, 1):
            yield f"{number:3} {what(operation)}"
            yield f"      why        {operation.why}"
            yield f"      locks      {LOCKS[operation.kind]}"
            yield f"      waits for  {WAITS_FOR[operation.kind]}"
        yield from lines_of_findings(report.plan.findings)


def lines_of_run(reports: Iterable[TableReport]) -> Iterator[str]:
    """Yield what became of each step, what there is to know, and how far tables are covered.

    Drift is left out: that it was mended, or why not, is told by a step.
    """
    for report in reports:
        for outcome in report.outcomes:
            yield line_of(outcome)
        findings = report.plan.findings if report.plan else ()
        yield from lines_of_findings(each for each in findings if each.severity != "drift")
        yield f"{report.table}: {_conclusion(report)}"


def lines_of_trouble(reports: Iterable[TableReport]) -> Iterator[str]:
    """Yield only what somebody has to see; that another run is at work is no trouble."""
    for report in reports:
        yield from (line_of(each) for each in report.outcomes if each.result in _UNDONE)
        findings = report.plan.findings if report.plan else ()
        yield from lines_of_findings(each for each in findings if each.severity == "human")
        if report.error is not None and not report.is_busy:
            yield f"{report.table}: {report.error}"


def line_of(outcome: Outcome) -> str:
    """Return what became of a step, in one line."""
    operation = outcome.operation
    rows = "" if outcome.rows is None else f", {outcome.rows:,} rows"
    why = outcome.detail or operation.why
    took = f"{outcome.seconds * 1000:,.0f} ms"
    return f"{outcome.result:8} {operation.table}: {what(operation)}, {took}{rows}: {why}"


def lines_of_findings(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield each finding, and below it what mends it."""
    for finding in findings:
        where = f" {finding.partition}" if finding.partition else ""
        yield f"{finding.severity:8} {finding.code}{where}: {finding.detail}"
        if finding.remedy:
            yield f"{'':9}to mend it: {finding.remedy}"


def what(operation: Operation) -> str:
    """Return what a step does, to what."""
    whose = f" of tenant {operation.tenant}" if operation.tenant else ""
    bounds = f" ({span(operation.lower, operation.upper)})" if operation.upper else ""
    rows = "" if operation.rows is None else f", about {operation.rows:,} rows"
    return f"{operation.kind} {operation.partition}{bounds}{whose}{rows}"


def span(lower: datetime | None, upper: datetime | None) -> str:
    """Return bounds as people write them: without a time where it is midnight."""
    return f"{moment(lower) if lower else 'ever'} to {moment(upper) if upper else 'ever'}"


def moment(when: datetime) -> str:
    """Return an instant in UTC, as a date where it is midnight."""
    text = when.isoformat(sep=" ", timespec="minutes")[:16]
    return text.removesuffix(" 00:00")


def plans_as_json(reports: Iterable[TableReport]) -> dict[str, Any]:
    """Return one document with every step and finding."""
    return {"tables": [_plan_fields(report) for report in reports]}


def run_as_json(reports: Iterable[TableReport]) -> dict[str, Any]:
    """Return one document with what became of every step."""
    return {
        "tables": [
            {
                "table": report.table,
                "well": is_well(report),
                "busy": report.is_busy,
                "error": report.error,
                "covered_until": report.covered_until,
                "steps": [
                    {
                        **operation_fields(outcome.operation),
                        "result": outcome.result,
                        "detail": outcome.detail,
                        "seconds": round(outcome.seconds, 6),
                        "rows": outcome.rows,
                    }
                    for outcome in report.outcomes
                ],
                "findings": finding_fields(report.plan.findings if report.plan else ()),
            }
            for report in reports
        ]
    }


def operation_fields(operation: Operation) -> dict[str, Any]:
    """Return a step as JSON has it."""
    return {
        **dataclasses.asdict(operation),
        "locks": LOCKS[operation.kind],
        "waits_for": WAITS_FOR[operation.kind],
    }


def finding_fields(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON has them."""
    return [dataclasses.asdict(finding) for finding in findings]


def _plan_fields(report: TableReport) -> dict[str, Any]:
    plan = report.plan
    return {
        "table": report.table,
        "well": is_well(report),
        "error": report.error,
        "at": plan and plan.at,
        "covered_until": plan and plan.covered_until,
        "steps": [operation_fields(each) for each in plan.operations] if plan else [],
        "findings": finding_fields(plan.findings if plan else ()),
    }


def _heading(plan: Plan) -> str:
    count = len(plan.operations)
    steps = "nothing to do" if not count else "1 step" if count == 1 else f"{count} steps"
    return f"{plan.table}: {steps}, {_cover(plan.covered_until)}"


def _conclusion(report: TableReport) -> str:
    if report.is_busy:
        return "another run is at work on it"
    if report.error is not None:
        return report.error
    steps = "" if report.outcomes else "nothing to do, "
    return steps + _cover(report.covered_until)


def _cover(until: datetime | None) -> str:
    return f"covered until {moment(until)}" if until else "not covered, not even now"
