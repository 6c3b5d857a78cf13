"""One rule of a policy: which requests it is for, and how much of them is recorded.

A rule that exists is valid. The checks are shared by rules written in Python and in a file, so
that both are refused for the same reasons in the same words.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final, NamedTuple

from auditlog.capture.policy.globs import name_glob_problem, path_glob_problem, route_glob_problem
from auditlog.capture.policy.media_types import DEFAULT_BODY_TYPES, body_type_problem
from auditlog.errors import PolicyError
from auditlog.records import Protocol, RequestOutcome

CONDITIONS: Final = (
    "protocols",
    "methods",
    "paths",
    "routes",
    "statuses",
    "outcomes",
    "users",
    "tenants",
)
"""The fields of a rule that say which requests it is for; all that are given must hold."""


class Level(IntEnum):
    """How much of a request is recorded; each level includes the ones before it."""

    NONE = 0
    METADATA = 1
    HEADERS = 2
    BODY = 3


class Problem(NamedTuple):
    """What is wrong with a rule: the field, and a sentence with the remedy."""

    field: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which requests, and how much of them. A condition that is left empty always holds.

    Raises:
        PolicyError: a rule that cannot work, with the field and what would.
    """

    name: str
    """Stored with every request that the rule decides on, as `audit.rule`."""
    level: Level
    protocols: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    """As sent; upper and lower case differ."""
    paths: tuple[str, ...] = ()
    """Globs on the decoded path: `*` within a segment, `**` across segments."""
    routes: tuple[str, ...] = ()
    """Globs on the template of the route, which a request without a route never matches."""
    statuses: tuple[str, ...] = ()
    """`"404"` or `"5xx"`."""
    users: tuple[str, ...] = ()
    """Globs; `*` is every request that has a user."""
    tenants: tuple[str, ...] = ()
    """Globs on the instance id."""
    outcomes: tuple[str, ...] = ()
    """Values of `audit.outcome`."""
    sample: float = 1.0
    """The share that is recorded. A 5xx, denied or broken request always is."""
    low_priority: bool | None = None
    """Makes room for other rows when the queue is full. None: only if the outcome is `ok`."""
    received: bool = False
    """Writes a row when the request begins, too; one that has no complete row tells of a crash."""
    body_types: tuple[str, ...] = DEFAULT_BODY_TYPES
    """At level BODY: content types whose bodies are stored; `application/*+json` is one."""

    def __post_init__(self) -> None:
        """Refuse what cannot work, here rather than at the first request."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        problem = next(find_problems(values), None)
        if problem:
            name = self.name if isinstance(self.name, str) else "?"
            raise PolicyError(f"rule {name!r}: {problem.field}: {problem.text}")
        for key in (*CONDITIONS, "body_types"):
            object.__setattr__(self, key, tuple(values[key]))

    @property
    def is_catch_all(self) -> bool:
        """Does it match every request?"""
        return not any(getattr(self, condition) for condition in CONDITIONS)


def find_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the values of a rule's fields."""
    for key, value in values.items():
        for text in _CHECKS[key](value):
            yield Problem(key, text)
    if values.get("received") is True:
        yield from _find_contradictions(values)


def find_order_problems(rules: Iterable[Rule]) -> Iterator[tuple[int, Problem]]:
    """Yield the index of a rule and what is wrong with its place among the others."""
    names: set[str] = set()
    catch_all: Rule | None = None
    for index, rule in enumerate(rules):
        if rule.name in names:
            yield index, Problem("name", f"{rule.name!r} is taken; every rule needs its own")
        if catch_all:
            text = f"never reached: rule {catch_all.name!r} matches every request; move it down"
            yield index, Problem("name", text)
        names.add(rule.name)
        catch_all = catch_all or (rule if rule.is_catch_all else None)


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """Return the near miss, or all the choices, as the end of a sentence."""
    near = difflib.get_close_matches(str(word).lower(), choices := list(choices), 1, 0.6)
    return f"did you mean {near[0]!r}?" if near else f"write one of {', '.join(choices)}"


def _find_contradictions(values: Mapping[str, Any]) -> Iterator[Problem]:
    """A row at the beginning is written before anything can leave the request out."""
    if values.get("level") is Level.NONE:
        yield Problem("received", "a rule of level none writes no row; leave one of the two out")
    if values.get("sample", 1) != 1:
        yield Problem(
            "received",
            "a row at the beginning cannot be sampled: its end has to be written too;"
            " leave out sample, or write a rule of its own for what is sampled",
        )


def _check_name(value: object) -> Iterator[str]:
    if not isinstance(value, str) or not value.strip():
        yield "a rule needs a name: it is stored with the requests that the rule decides on"


def _check_level(value: object) -> Iterator[str]:
    if not isinstance(value, Level):
        yield f"{value!r} is no level; write Level.NONE, METADATA, HEADERS or BODY"


def _check_sample(value: object) -> Iterator[str]:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        yield f"{value!r} is no share; write a number from 0 to 1, like 0.1 for every tenth"


def _check_received(value: object) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"must be true or false, not {value!r}"


def _check_low_priority(value: object) -> Iterator[str]:
    if value is not None and not isinstance(value, bool):
        yield f"must be true or false, not {value!r}"


def _list_of(
    kind: type, check_item: Callable[[Any], str | None]
) -> Callable[[object], Iterator[str]]:
    noun = "text" if kind is str else "protocols"

    def check(values: object) -> Iterator[str]:
        if not isinstance(values, list | tuple):
            yield f"must be a list of {noun}, not {values!r}; write [{values!r}]"
            return
        for value in values:
            if not isinstance(value, kind) or isinstance(value, bool):
                yield f"must be a list of {noun}; {value!r} is none"
            elif problem := check_item(value):
                yield problem

    return check


def _protocol_problem(value: int) -> str | None:
    if value in set(Protocol):
        return None
    return f"{value!r} is no protocol; write Protocol.HTTP, GRPC or GRAPHQL"


def _method_problem(value: str) -> str | None:
    if value in _HTTP_METHODS_IN_LOWER_CASE:
        return f"{value!r}: methods are upper case, write {value.upper()!r}"
    if not _TOKEN.fullmatch(value):
        return f"{value!r} is no method; write one like 'GET'"
    return None


def _status_problem(value: str) -> str | None:
    if _STATUS.fullmatch(value):
        return None
    return f"{value!r} is no status; write a number like '404' or a class like '5xx'"


def _outcome_problem(value: str) -> str | None:
    outcomes = [str(outcome) for outcome in RequestOutcome]
    if value in outcomes:
        return None
    return f"{value!r} is no outcome; {did_you_mean(value, outcomes)}"


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HTTP_METHODS_IN_LOWER_CASE = frozenset(
    {"get", "head", "post", "put", "patch", "delete", "options", "trace", "connect"}
)
# Three digits in HTTP, 0 to 16 in gRPC.
_STATUS = re.compile(r"[1-5]xx|[1-5]\d\d|\d|1[0-6]")
_CHECKS: dict[str, Callable[[object], Iterator[str]]] = {
    "name": _check_name,
    "level": _check_level,
    "protocols": _list_of(int, _protocol_problem),
    "methods": _list_of(str, _method_problem),
    "paths": _list_of(str, path_glob_problem),
    "routes": _list_of(str, route_glob_problem),
    "statuses": _list_of(str, _status_problem),
    "users": _list_of(str, name_glob_problem),
    "tenants": _list_of(str, name_glob_problem),
    "outcomes": _list_of(str, _outcome_problem),
    "sample": _check_sample,
    "low_priority": _check_low_priority,
    "received": _check_received,
    "body_types": _list_of(str, body_type_problem),
}
