"""Why a policy decides as it does: every rule in order, and what would be stored.

Takes the facts that are known of a request; what is None is not known yet, and a rule that
depends on it may apply. Gives plain data, and leaves printing to others.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from auditlog.capture.policy.matching import Facts, RuleMatcher
from auditlog.capture.policy.rules import CONDITIONS, Level, Rule
from auditlog.records import Protocol

_NOUNS = ("protocol", "method", "path", "route", "status", "outcome", "user", "tenant")
_STORED = (
    (),
    (
        "time, method, path and query, route, status, outcome, duration",
        "user, tenant, addresses, sizes, trace and request id, annotations",
    ),
    ("the request headers of capture_headers",),
    ("request and response bodies of the rule's body_types, up to max_body_bytes",),
)


class Verdict(StrEnum):
    """What a rule has to say about a request."""

    APPLIES = "applies"
    MAY_APPLY = "may apply"
    DIFFERS = "does not match"
    NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class RuleReport:
    """One rule, and why it is for the request or not."""

    rule: str
    level: Level
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What happens to a request. `level` holds unless a rule that may apply does."""

    rules: tuple[RuleReport, ...]
    level: Level
    rule: str | None
    """The rule that applies; None for the default."""
    stored: tuple[str, ...]
    """What is stored at that level; secrets are redacted everywhere."""
    received: str | None = None
    """The rule by which a row is written when the request begins, too; None if none is."""

    @property
    def certain(self) -> bool:
        """Is it settled, whatever the facts that are not known?"""
        return all(report.verdict is not Verdict.MAY_APPLY for report in self.rules)


def explain(
    matchers: Sequence[RuleMatcher], default: Level, facts: Facts, asking: Rule | None = None
) -> Explanation:
    """Ask every rule in order until one applies for certain."""
    reports: list[RuleReport] = []
    decided: Rule | None = None
    for matcher in matchers:
        rule = matcher.rule
        if decided:
            reason = f"{decided.name!r} has decided"
            reports.append(RuleReport(rule.name, rule.level, Verdict.NOT_REACHED, reason))
            continue
        verdict, reason = _ask(matcher, facts)
        reports.append(RuleReport(rule.name, rule.level, verdict, reason))
        decided = rule if verdict is Verdict.APPLIES else None
    level = decided.level if decided else default
    return Explanation(
        tuple(reports),
        level,
        decided.name if decided else None,
        stored_at(level),
        asking.name if asking else None,
    )


def stored_at(level: Level) -> tuple[str, ...]:
    """Return what is stored at a level, a line each."""
    return tuple(line for lines in _STORED[: level + 1] for line in lines)


def _ask(matcher: RuleMatcher, facts: Facts) -> tuple[Verdict, str]:
    unknown = []
    for index, holds in sorted(matcher.tests, key=lambda test: test[0]):
        fact = facts[index]
        wanted = ", ".join(_wanted(matcher.rule, CONDITIONS[index]))
        if fact is None:
            unknown.append(f"{_NOUNS[index]} is {wanted}")
        elif not holds(fact):
            return Verdict.DIFFERS, f"{_NOUNS[index]} {_shown(index, fact)} is not {wanted}"
    sampling = _sampling(matcher.rule)
    if unknown:
        return Verdict.MAY_APPLY, f"if {' and '.join(unknown)}{sampling}"
    return Verdict.APPLIES, f"every condition holds{sampling}"


def _wanted(rule: Rule, condition: str) -> Iterator[str]:
    for value in getattr(rule, condition):
        yield Protocol(value).name.lower() if condition == "protocols" else str(value)


def _shown(index: int, fact: object) -> str:
    if isinstance(fact, int) and CONDITIONS[index] == "protocols":
        return Protocol(fact).name.lower()
    return str(fact) or "(none)"


def _sampling(rule: Rule) -> str:
    if rule.sample >= 1 or rule.level is Level.NONE:
        return ""
    return f"; {rule.sample:.4g} of them are recorded, 5xx, denied and broken ones always"
