"""What cannot work of a quota, and what would.

Shared by quotas written in Python, in a file and in the database, so that all are refused for the
same reasons in the same words.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, get_args

from auditlog.capture.policy import rules
from auditlog.capture.policy.rules import Problem, did_you_mean
from auditlog.errors import QuotaError
from auditlog.quota.limits import periods
from auditlog.quota.limits.kinds import MAX_PERCENT, MAX_UNITS, Counts, Per, Policy
from auditlog.records import RequestOutcome
from auditlog.settings import MAX_ID_BYTES

# Three digits in HTTP, 0 to 16 in gRPC.
_STATUS = re.compile(r"[1-5]\d\d|\d|1[0-6]", re.ASCII)

_Check = Callable[[Any], Iterator[str]]


def find_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the values of a quota's fields, of those that are given."""
    problems = [Problem(key, text) for key, value in values.items() for text in _CHECKS[key](value)]
    # What does not go together is told of values that could each work.
    yield from problems or _find_contradictions(values)


def several(values: Any) -> tuple[Any, ...]:
    """Return the values of a list, for which a single one may stand."""
    return (values,) if isinstance(values, str | int) else tuple(values)


def _find_contradictions(values: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        _try_period(values)
    except QuotaError as error:
        yield Problem("period", str(error))
    if values.get("rolling") and values.get("anchor"):
        yield Problem("anchor", "a rolling window ends at every instant; leave one of the two out")
    per, routes = several(values.get("per", ())), several(values.get("routes", ()))
    if Per.ROUTE in per and not routes and values.get("counts") != Counts.REPORTED:
        yield Problem(
            "routes",
            "a quota per route needs the globs that tell routes apart: write routes ="
            ' ["/orders/*", "/users/**"], or ["**"] for every method of gRPC',
        )


def _try_period(values: Mapping[str, Any]) -> None:
    """A quota that exists must not fail when it is first spent."""
    period = periods.parse(values.get("period", "month"))
    if values.get("rolling"):
        periods.fixed_us(period)
    else:
        periods.bounds(period, 0, values.get("anchor"), values.get("time_zone", "UTC"))


def _check_name(value: object) -> Iterator[str]:
    if not isinstance(value, str) or not value.isprintable() or not value:
        yield f"must be a text that can be printed, not {value!r}"
    elif len(value.encode()) > MAX_ID_BYTES:
        yield f"must be at most {MAX_ID_BYTES} bytes long"


def _check_tenant(value: object) -> Iterator[str]:
    if value is not None:
        yield from _check_name(value)


def _whole(least: int, most: int) -> _Check:
    def check(value: object) -> Iterator[str]:
        if type(value) is not int or not least <= value <= most:
            yield f"must be a whole number from {least} to {most}, not {value!r}"

    return check


def _check_switch(value: object) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"must be true or false, not {value!r}"


def _one_of(choices: Iterable[str]) -> _Check:
    names = [str(choice) for choice in choices]

    def check(value: object) -> Iterator[str]:
        if value not in names:
            yield f"must be one of {', '.join(names)}, not {value!r}"

    return check


def _each(check_item: _Check) -> _Check:
    """A list, or a single one. No set: its order differs from process to process."""

    def check(values: object) -> Iterator[str]:
        if not isinstance(values, str | int | list | tuple):
            yield f"must be a list, not {values!r}"
            return
        for value in several(values):
            yield from check_item(value)

    return check


def _check_per(values: object) -> Iterator[str]:
    yield from _each(_one_of(Per))(values)
    if values in ((), []):
        yield "must name whose usage is added up: 'tenant' for all of a tenant"


def _check_period(value: Any) -> Iterator[str]:
    try:
        periods.parse(value)
    except QuotaError as error:
        yield str(error)


def _check_anchor(value: object) -> Iterator[str]:
    if value is not None and not isinstance(value, datetime):
        yield f"must be a date and time, not {value!r}"


def _check_zone(value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"must be the name of a time zone, not {value!r}"
        return
    try:
        periods.check_zone(value)
    except QuotaError as error:
        yield str(error)


def _check_refund(value: object) -> Iterator[str]:
    outcomes = [str(outcome) for outcome in RequestOutcome]
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not (text in outcomes or _STATUS.fullmatch(text)):
        yield f"{value!r} is no outcome, and no status like 404; {did_you_mean(value, outcomes)}"


def _check_route(value: object) -> Iterator[str]:
    yield from (problem.text for problem in rules.find_problems({"paths": [value]}))


def _check_method(value: object) -> Iterator[str]:
    method = value.upper() if isinstance(value, str) else value
    yield from (problem.text for problem in rules.find_problems({"methods": [method]}))


_CHECKS: Mapping[str, _Check] = {
    "id": _check_name,
    "limit": _whole(0, MAX_UNITS),
    "period": _check_period,
    "counts": _one_of(Counts),
    "per": _check_per,
    "rolling": _check_switch,
    "anchor": _check_anchor,
    "time_zone": _check_zone,
    "thresholds": _each(_whole(1, MAX_PERCENT)),
    "enforced": _check_switch,
    "exact": _check_switch,
    "on_unavailable": _one_of(get_args(Policy)),
    "refunds": _each(_check_refund),
    "routes": _each(_check_route),
    "methods": _each(_check_method),
    "tenant": _check_tenant,
    "log_allowed": _check_switch,
}
