"""A rule made ready to be asked: one test per condition, the cheap ones first.

Tests take a fact and answer; they share nothing and allocate nothing. A fact that a request does
not have (no user, no route) is an empty text, which no glob matches.
"""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from auditlog.capture.policy.globs import name_matcher, path_matcher
from auditlog.capture.policy.rules import CONDITIONS, Rule
from auditlog.records import Protocol

Facts: TypeAlias = tuple[int, str, str, str | None, int | None, str | None, str | None, str | None]
"""Protocol, method, path, route, status, outcome, user, tenant: in the order of CONDITIONS."""
Test: TypeAlias = Callable[[Any], object]

_CHEAP_FIRST: Final = (
    "methods",
    "outcomes",
    "statuses",
    "protocols",
    "paths",
    "routes",
    "users",
    "tenants",
)
_KNOWN_EARLY = {"protocols", "methods", "paths"}


class RuleMatcher:
    """Asks whether a rule is for a request."""

    __slots__ = (
        "_early_methods",
        "_early_paths",
        "_early_protocols",
        "known_early",
        "rule",
        "tests",
    )

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        named = {
            name: _MAKERS[name](getattr(rule, name)) for name in _CHEAP_FIRST if getattr(rule, name)
        }
        self.tests = tuple((CONDITIONS.index(name), test) for name, test in named.items())
        self.known_early = named.keys() <= _KNOWN_EARLY and _is_early(rule.protocols)
        """Does a rule that may match, match for certain?"""
        self._early_methods = named.get("methods")
        self._early_paths = named.get("paths")
        self._early_protocols = _early_protocols(rule)

    def may_match(self, protocol: int, method: str, path: str) -> bool:
        """Tell whether the rule is still possible, by what is known before the response."""
        return bool(
            (not self._early_protocols or protocol in self._early_protocols)
            and (self._early_methods is None or self._early_methods(method))
            and (self._early_paths is None or self._early_paths(path))
        )


def statuses_of(statuses: tuple[str, ...]) -> frozenset[int]:
    """Return all that `404` and `5xx` stand for."""
    numbers: set[int] = set()
    for status in statuses:
        if status.endswith("xx"):
            first = int(status[0]) * 100
            numbers.update(range(first, first + 100))
        else:
            numbers.add(int(status))
    return frozenset(numbers)


def _is_early(protocols: tuple[int, ...]) -> bool:
    """Tell whether a protocol is known before the response: HTTP may turn out to be GraphQL."""
    return (Protocol.HTTP in protocols) == (Protocol.GRAPHQL in protocols)


def _early_protocols(rule: Rule) -> frozenset[int]:
    """What turns out to be GraphQL begins as HTTP."""
    protocols = frozenset(rule.protocols)
    return protocols | {Protocol.HTTP} if Protocol.GRAPHQL in protocols else protocols


_MAKERS: dict[str, Callable[[Any], Test]] = {
    "protocols": lambda values: frozenset(values).__contains__,
    "methods": lambda values: frozenset(values).__contains__,
    "statuses": lambda values: statuses_of(values).__contains__,
    "outcomes": lambda values: frozenset(values).__contains__,
    "paths": path_matcher,
    "routes": path_matcher,
    "users": name_matcher,
    "tenants": name_matcher,
}
