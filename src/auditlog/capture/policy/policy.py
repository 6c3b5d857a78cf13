"""The policy: an ordered list of rules, the first that matches decides what is recorded.

Asked twice per request: before the application runs, whether a body may be wanted (`wants_body`)
and whether a row is (`wants_received`), and after the response, with all facts, what to record
(`decide`). Pure and synchronous; answers are made once, with the policy. No error and no denial
can be sampled away; only a rule of level NONE leaves them out.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from auditlog.capture.policy.explanation import Explanation, explain
from auditlog.capture.policy.globs import path_matcher
from auditlog.capture.policy.matching import Facts, RuleMatcher, statuses_of
from auditlog.capture.policy.rules import Level, Rule, find_order_problems
from auditlog.errors import PolicyError
from auditlog.records import Protocol, RequestOutcome

__all__ = ["DEFAULT_RULES", "Decision", "Explanation", "Level", "Policy", "Rule"]

DEFAULT_RULES: Final = (
    Rule(
        name="health-checks",
        level=Level.NONE,
        protocols=(Protocol.HTTP,),
        methods=("GET", "HEAD"),
        # Not /health/**: that may well be where an application keeps its patients.
        paths=(
            "/health",
            "/health/live",
            "/health/ready",
            "/health/startup",
            "/healthz/**",
            "/livez/**",
            "/readyz/**",
            "/ping",
            "/metrics",
        ),
        statuses=("2xx", "3xx"),
        outcomes=("ok",),
    ),
    Rule(
        name="static-files",
        level=Level.NONE,
        protocols=(Protocol.HTTP,),
        methods=("GET", "HEAD"),
        paths=("/static/**", "/assets/**", "/favicon.ico", "/robots.txt"),
        statuses=("2xx", "3xx"),
        outcomes=("ok",),
    ),
    Rule(
        name="grpc-health-checks",
        level=Level.NONE,
        protocols=(Protocol.GRPC,),
        paths=("/grpc.health.v1.Health/*",),
        outcomes=("ok",),
    ),
    Rule(
        name="grpc-streams-of-tools",
        level=Level.NONE,
        protocols=(Protocol.GRPC,),
        # They last until their client has seen enough, and leaves.
        paths=("/grpc.health.v1.Health/Watch", "/grpc.reflection.*/*"),
        outcomes=("ok", "cancelled", "deadline"),
    ),
)
"""Leave out what succeeds and says nothing; when it fails, it has its row."""

_SAMPLED_OUTCOMES = frozenset({str(RequestOutcome.OK), str(RequestOutcome.CLIENT_ERROR)})
_SUCCESS: Final = {int(Protocol.HTTP): 200, int(Protocol.GRPC): 0}
"""The status of a request that succeeds, by the protocol in which it begins."""
_NEVER_SAMPLED_STATUSES = frozenset({401, 403, 407, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class Decision:
    """What to record of a request, and which rule says so."""

    level: Level
    rule: str | None = None
    """The name of the rule; None where none matched and the default applies."""
    sampled_out: bool = False
    low_priority: bool | None = None
    matched: Rule | None = None


class Policy:
    """Decides what is recorded. Immutable; shared by all requests and threads.

    Args:
        rules: In the order in which they are asked.
        default: The level of a request that no rule matches.
        sampler: Returns numbers evenly spread over [0, 1).

    Raises:
        PolicyError: two rules of one name, one that can never be reached, or no level.
    """

    def __init__(
        self,
        rules: Sequence[Rule] = DEFAULT_RULES,
        *,
        default: Level = Level.HEADERS,
        sampler: Callable[[], float] = random.random,
    ) -> None:
        if not isinstance(default, Level):
            raise PolicyError(f"default: {default!r} is no level; write Level.HEADERS, for one")
        for index, problem in find_order_problems(rules):
            raise PolicyError(f"rule {rules[index].name!r}: {problem.text}")
        self.rules = tuple(rules)
        self.default = default
        self._sampler = sampler
        self._default_decision = Decision(default)
        self._verdicts = [_Verdict(rule) for rule in self.rules]
        self._gate = _gate(self.rules)
        self._for_bodies = self._early_look(lambda rule: rule.level is Level.BODY)
        self._for_received = self._early_look(lambda rule: rule.received)
        self.announces = bool(self._for_received)
        """Does any rule ask for a row when a request begins?"""

    def wants_body(self, protocol: int, method: str, path: str) -> Rule | None:
        """Return the first rule that may ask for a body, by what is known before the response."""
        if not self._for_bodies:
            return None
        return _first_to_ask(self._for_bodies, protocol, method, path)

    def wants_received(self, protocol: int, method: str, path: str) -> Rule | None:
        """Return the first rule that may match and asks for a row when the request begins."""
        return _first_to_ask(self._for_received, protocol, method, path)

    def at_beginning(self, protocol: int, method: str, path: str) -> tuple[Level, Rule | None]:
        """Return the level that is probable when a request begins, and the rule that says so.

        Level NONE exempts it from `durability="commit"`: such are health checks, which must be
        answered while the trail is not to be had. If they fail, they still have their row. A rule
        exempts only what it leaves out for certain when it succeeds: one that asks for a user, a
        route, a tenant or another status may be for any request, and the next rule is asked.
        """
        if self._gate is not None and self._gate(path) is None:
            return self.default, None
        for verdict in self._verdicts:
            if verdict.matcher.may_match(protocol, method, path):
                rule = verdict.matcher.rule
                if rule.level is not Level.NONE or protocol in verdict.exempt_protocols:
                    return rule.level, rule
        return self.default, None

    def decide(  # noqa: PLR0917  # keywords would cost the hot path 0.1 µs
        self,
        protocol: int,
        method: str,
        path: str,
        route: str | None,
        status: int | None,
        outcome: str,
        user: str | None,
        tenant: str | None,
    ) -> Decision:
        """Return what to record, by all that is known after the response."""
        if self._gate is not None and self._gate(path) is None:
            return self._default_decision
        facts: Facts = (
            protocol, method, path, route or "", status, outcome, user or "", tenant or "",
        )  # fmt: skip
        for verdict in self._verdicts:
            for index, holds in verdict.tests:
                if not holds(facts[index]):
                    break
            else:
                return self._sampled(verdict, status, outcome)
        return self._default_decision

    def explain(  # noqa: PLR0917  # the arguments of decide
        self,
        protocol: int,
        method: str,
        path: str,
        route: str | None = None,
        status: int | None = None,
        outcome: str | None = None,
        user: str | None = None,
        tenant: str | None = None,
    ) -> Explanation:
        """Tell which rule applies to a request and why; what is None is not known yet."""
        facts: Facts = (protocol, method, path, route, status, outcome, user, tenant)
        asking = self.wants_received(protocol, method, path)
        matchers = [verdict.matcher for verdict in self._verdicts]
        return explain(matchers, self.default, facts, asking)

    def _early_look(self, asks: Callable[[Rule], bool]) -> list[tuple[RuleMatcher, bool]]:
        """Return the rules up to the last that asks for something, each with whether it does."""
        asking = [asks(rule) for rule in self.rules]
        last = max((index for index, is_asking in enumerate(asking) if is_asking), default=-1)
        matchers = (verdict.matcher for verdict in self._verdicts)
        return list(zip(matchers, asking, strict=True))[: last + 1]

    def _sampled(self, verdict: "_Verdict", status: int | None, outcome: str) -> Decision:
        share = verdict.sample
        if (
            share >= 1
            or status in _NEVER_SAMPLED_STATUSES
            or outcome not in _SAMPLED_OUTCOMES
            or self._sampler() < share
        ):
            return verdict.kept
        return verdict.sampled_out


class _Verdict:
    """A rule, ready to be asked, with its two possible answers."""

    __slots__ = ("exempt_protocols", "kept", "matcher", "sample", "sampled_out", "tests")

    def __init__(self, rule: Rule) -> None:
        self.matcher = RuleMatcher(rule)
        self.tests = self.matcher.tests
        self.sample = rule.sample
        self.kept = Decision(rule.level, rule.name, False, rule.low_priority, rule)
        self.sampled_out = Decision(Level.NONE, rule.name, True, rule.low_priority, rule)
        self.exempt_protocols = _exempt_protocols(rule)


def _exempt_protocols(rule: Rule) -> frozenset[int]:
    """Return the protocols whose requests a rule leaves out for certain when they succeed."""
    if rule.level is not Level.NONE or rule.routes or rule.users or rule.tenants:
        return frozenset()
    if rule.outcomes and str(RequestOutcome.OK) not in rule.outcomes:
        return frozenset()
    statuses = statuses_of(rule.statuses)
    return frozenset(
        protocol
        for protocol, success in _SUCCESS.items()
        # What is for GraphQL alone may begin as any HTTP request.
        if (not rule.protocols or protocol in rule.protocols)
        and (not statuses or success in statuses)
    )


def _first_to_ask(
    candidates: Sequence[tuple[RuleMatcher, bool]], protocol: int, method: str, path: str
) -> Rule | None:
    for matcher, is_asking in candidates:
        if matcher.may_match(protocol, method, path):
            if is_asking:
                return matcher.rule
            if matcher.known_early:
                return None
    return None


def _gate(rules: Sequence[Rule]) -> Callable[[str], object] | None:
    """One look at the path that tells whether any rule can match; None where that is not told."""
    if not rules or not all(rule.paths for rule in rules):
        return None
    return path_matcher(glob for rule in rules for glob in rule.paths)
