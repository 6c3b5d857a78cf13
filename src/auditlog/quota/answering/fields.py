"""What a client is told of quotas in HTTP: the RateLimit fields, `Retry-After`, and the problem.

Source: draft-ietf-httpapi-ratelimit-headers-10; values are Structured Fields (RFC 9651), a problem
is RFC 9457's. No partition keys: they would tell whose usage is added up. Pure.
"""

from collections.abc import Iterable
from functools import lru_cache
from math import ceil
from typing import Any, Final
from urllib.parse import quote

from auditlog.quota.model import Basis, Counts, Decision, Quota

MAX_INTEGER: Final = 999_999_999_999_999
"""The largest Integer of a Structured Field (RFC 9651, section 3.3.1)."""
QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"
REDUCED_CAPACITY: Final = (
    "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
)
TOO_MANY_REQUESTS: Final = 429
SERVICE_UNAVAILABLE: Final = 503
UNAVAILABLE_RETRY_S: Final = 1
"""When to come again while the database is away: not at the end of the period, in a month."""
POLICY, LIMIT, RETRY_AFTER = b"ratelimit-policy", b"ratelimit", b"retry-after"
_US_PER_S: Final = 1_000_000
# Of the registry's units there is none for time and none for what an application counts: a text
# that is not registered is a comment, and the default would be a lie.
_UNITS: Final = {
    Counts.BYTES: ';qu="content-bytes"',
    Counts.EXECUTION_MS: ';qu="milliseconds"',
    Counts.REPORTED: ';qu="units"',
}
# All that is printable in ASCII, but for what begins an escape of either kind, and for the quotes.
_PLAIN: Final = " !#$&'()*+,-./:;<=>?@[]^_`{|}~"


def fields_of(decisions: Iterable[Decision]) -> list[tuple[bytes, bytes]]:
    """Return the two fields that tell of quotas and of what is left; none where there is nothing.

    A quota that refuses nobody limits nobody, and what is left while the database is away is not
    known.
    """
    known = [each for each in decisions if each.basis is not Basis.UNAVAILABLE]
    told = [each for each in known if each.quota.enforced]
    if not told:
        return []
    policies = ", ".join(
        _policy(each.quota, 0 if each.quota.rolling else each.period_start_us) for each in told
    )
    limits = ", ".join(_limit(each) for each in told)
    return [(POLICY, policies.encode()), (LIMIT, limits.encode())]


def status_of(refusal: Decision) -> int:
    """Return the status of a refusal: a database that is away is no fault of the client's."""
    return SERVICE_UNAVAILABLE if refusal.basis is Basis.UNAVAILABLE else TOO_MANY_REQUESTS


def retry_after_s(refusal: Decision) -> int:
    """Return after how many seconds it is worth trying again: whole ones, at least one."""
    if refusal.basis is Basis.UNAVAILABLE:
        return UNAVAILABLE_RETRY_S
    return max(1, ceil(refusal.resets_in_s))


def problem_of(refusal: Decision) -> dict[str, Any]:
    """Return the body of a refusal, for `application/problem+json`."""
    name, status = name_of(refusal.quota), status_of(refusal)
    if status == TOO_MANY_REQUESTS:
        kind, title, detail = QUOTA_EXCEEDED, "Quota exceeded", f"The quota {name!r} is used up."
    else:
        kind, title = REDUCED_CAPACITY, "Quota cannot be checked"
        detail = f"Whether anything is left of the quota {name!r} cannot be told at present."
    return {
        "type": kind,
        "title": title,
        "status": status,
        "detail": detail,
        "violated-policies": [name],
    }


def name_of(quota: Quota) -> str:
    """Return a quota's identifier in the ASCII of a Structured Field's String."""
    return quote(quota.id, safe=_PLAIN)


@lru_cache(maxsize=4096)
def _policy(quota: Quota, at_us: int) -> str:
    unit = _UNITS.get(quota.counts, "")
    limit = min(quota.limit, MAX_INTEGER)
    return f'"{name_of(quota)}";q={limit}{unit};w={_window_s(quota, at_us)}'


def _window_s(quota: Quota, at_us: int) -> int:
    start, end = quota.of_instant(at_us)
    return max(1, round((end - start) / _US_PER_S))


def _limit(decision: Decision) -> str:
    remaining = min(decision.remaining, MAX_INTEGER)
    return f'"{name_of(decision.quota)}";r={remaining};t={max(0, ceil(decision.resets_in_s))}'
