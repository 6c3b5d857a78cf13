"""What a quota may say, what is refused with what remedy, and the one form it is kept in."""

import ast
import inspect
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditlog.errors import QuotaError
from auditlog.quota import model
from auditlog.quota.model import MAX_UNITS, Counts, Per, Quota, milliseconds
from auditlog.records import RequestOutcome

DOCUMENT = Path(__file__).parents[2] / "docs" / "quotas.md"
DAY_US = 86_400_000_000


def quota(**values: Any) -> Quota:
    """Make a quota of values as people give them."""
    return Quota(**{"id": "requests", "limit": 100, **values})


def test_a_name_and_a_limit_are_enough() -> None:
    """For requests of each tenant in each month."""
    assert Quota("requests", 100) == Quota(
        id="requests",
        limit=100,
        period="1 month",
        counts=Counts.REQUESTS,
        per=(Per.TENANT,),
        refunds=("server_error", "cancelled", "401", "429"),
    )


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("period", "Month", "1 month"),
        ("period", "15min", "15 minutes"),
        ("counts", "bytes", Counts.BYTES),
        ("per", "user", (Per.USER,)),
        ("per", ["address", "user", "address", "tenant"], (Per.TENANT, Per.USER, Per.ADDRESS)),
        ("thresholds", 80, (80,)),
        ("thresholds", [100, 50, 100], (50, 100)),
        ("refunds", [404, "denied", "404", 16], ("404", "denied", "16")),
        ("refunds", 429, ("429",)),
        ("refunds", (), ()),
        ("routes", "/a/**", ("/a/**",)),
        ("routes", ["/b", "/a", "/b"], ("/b", "/a")),
        ("methods", ["post", "PUT", "Post"], ("POST", "PUT")),
        ("limit", 0, 0),
        ("limit", MAX_UNITS, MAX_UNITS),
        ("tenant", "acme", "acme"),
    ],
)
def test_what_is_given_is_kept_in_one_form(field: str, given: Any, kept: Any) -> None:
    """However it was written, it is the same quota, and names the same counters."""
    found = quota(**{field: given})
    assert getattr(found, field) == kept
    assert type(getattr(found, field)) is type(kept)
    assert quota(**{field: kept}) == found


@pytest.mark.parametrize("outcome", list(RequestOutcome))
def test_every_outcome_can_be_refunded(outcome: str) -> None:
    """As `audit.outcome` has it."""
    assert quota(refunds=outcome).refunds == (str(outcome),)


@pytest.mark.parametrize(
    ("anchor", "time_zone"),
    [
        (datetime(2026, 7, 14, 22, tzinfo=UTC), "UTC"),
        (datetime(2026, 7, 15, tzinfo=timezone(timedelta(hours=2))), "America/Havana"),
        (datetime(2026, 7, 15), "Europe/Berlin"),  # noqa: DTZ001  # of the quota's zone
        (datetime(2026, 7, 14, 22), "UTC"),  # noqa: DTZ001  # likewise
    ],
)
def test_an_anchor_is_kept_in_utc(anchor: datetime, time_zone: str) -> None:
    """Without an offset it is the time of day in the quota's time zone."""
    found = quota(anchor=anchor, time_zone=time_zone)
    assert found.anchor == datetime(2026, 7, 14, 22, tzinfo=UTC)
    assert found.anchor.tzinfo is UTC
    assert replace(found) == found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"id": ""}, "id: must be a text that can be printed, not ''"),
        ({"id": 7}, "id: must be a text"),
        ({"id": "a\0"}, "id: must be a text that can be printed"),
        ({"id": "\ud800"}, "id: must be a text that can be printed"),
        ({"id": "ä" * 128}, "id: must be at most 255 bytes long"),
        ({"tenant": ""}, "tenant: must be a text that can be printed, not ''"),
        ({"limit": -1}, "limit: must be a whole number from 0 to 9007199254740991, not -1"),
        ({"limit": MAX_UNITS + 1}, "limit: must be a whole number"),
        ({"limit": 10.0}, "limit: must be a whole number"),
        ({"limit": True}, "limit: must be a whole number"),
        ({"limit": "10"}, "limit: must be a whole number"),
        ({"period": "fortnight"}, "period: 'fortnight' is no period: write 15 minutes, hour, 7"),
        ({"period": "500 years"}, "period: '500 years' is no period: it must be from a minute"),
        ({"counts": "request"}, "counts: must be one of requests, authenticated, writes, bytes"),
        ({"counts": ["writes"]}, "counts: must be one of"),
        ({"per": "organization"}, "per: must be one of tenant, organisation, user, key, route"),
        ({"per": ()}, "per: must name whose usage is added up: 'tenant' for all of a tenant"),
        ({"per": None}, "per: must be a list, not None"),
        ({"per": {"user"}}, "per: must be a list, not {'user'}"),
        ({"per": "route"}, "routes: a quota per route needs the globs that tell routes apart"),
        ({"rolling": "yes"}, "rolling: must be true or false, not 'yes'"),
        ({"rolling": True}, "period: 1 month has no fixed length, as a rolling window must: write"),
        (
            {"rolling": True, "period": "day", "anchor": datetime(2026, 1, 1, tzinfo=UTC)},
            "anchor: a rolling window ends at every instant; leave one of the two out",
        ),
        ({"anchor": "2026-01-01"}, "anchor: must be a date and time, not '2026-01-01'"),
        ({"anchor": date(2026, 1, 1)}, "anchor: must be a date and time"),
        ({"anchor": datetime.max, "time_zone": "America/Havana"}, "period: the period is not with"),  # noqa: DTZ901  # the end of the calendar
        ({"time_zone": "Berlin"}, "time_zone: there is no time zone 'Berlin': did you mean 'Eur"),
        ({"time_zone": None}, "time_zone: must be the name of a time zone, not None"),
        ({"thresholds": [80, 0]}, "thresholds: must be a whole number from 1 to 1000, not 0"),
        ({"thresholds": 1001}, "thresholds: must be a whole number"),
        ({"thresholds": [True]}, "thresholds: must be a whole number"),
        ({"thresholds": ["80"]}, "thresholds: must be a whole number"),
        ({"enforced": 0}, "enforced: must be true or false, not 0"),
        ({"exact": None}, "exact: must be true or false"),
        ({"log_allowed": 1}, "log_allowed: must be true or false"),
        ({"on_unavailable": "fail"}, "on_unavailable: must be one of open, closed, not 'fail'"),
        ({"refunds": "servererror"}, "refunds: 'servererror' is no outcome, and no status like 4"),
        ({"refunds": ["5xx"]}, "refunds: '5xx' is no outcome, and no status like 404; write one"),
        ({"refunds": [600]}, "refunds: 600 is no outcome"),
        ({"refunds": [17]}, "refunds: 17 is no outcome"),
        ({"refunds": [False]}, "refunds: False is no outcome"),
        ({"refunds": ["٤"]}, "refunds: '٤' is no outcome"),
        ({"routes": "orders"}, "routes: 'orders' matches no path; write '/orders' or '**/orders'"),
        ({"routes": ["/a?b"]}, "routes: '/a?b' has a query"),
        ({"routes": ["/a/**b"]}, "routes: '/a/**b': '**' stands for whole segments"),
        ({"routes": [5]}, "routes: must be a list of text; 5 is none"),
        ({"methods": "GET POST"}, "methods: 'GET POST' is no method; write one like 'GET'"),
        ({"methods": [None]}, "methods: must be a list of text; None is none"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_with_the_remedy(
    values: Mapping[str, Any], expected: str
) -> None:
    """When it is made, not when the first request is counted."""
    with pytest.raises(QuotaError) as caught:
        quota(**values)
    name = values.get("id", "requests")
    assert str(caught.value).startswith(f"quota {name!r}: {expected}")


def test_routes_tell_apart_what_a_quota_per_route_counts() -> None:
    """What handlers report needs none: they name the subject."""
    assert quota(per="route", routes="**").per == (Per.ROUTE,)
    assert quota(per="route", counts="reported").routes == ()


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.binary(max_size=4)
    | st.datetimes()
    | st.dates()
    | st.sampled_from(["user", "route", "day", "month", "UTC", "404", "/a", "reported"]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=4,
)


@settings(deadline=None)  # to look for the time zone that was meant takes 5 ms and more
@given(st.dictionaries(st.sampled_from([field.name for field in fields(Quota)]), ANYTHING))
def test_whatever_is_given_works_or_is_refused(values: dict[str, Any]) -> None:
    """There is no other error; a quota that exists has periods, and is the same when remade."""
    with suppress(QuotaError):
        found = quota(**values)
        start, end = found.of_instant(0)
        assert start <= 0 < end
        assert Quota(**asdict(found)) == found
        assert hash(replace(found)) == hash(found)


@pytest.mark.parametrize("at_us", [0, 1, 20_000 * DAY_US + 1, -1])
def test_stretches_of_a_rolling_window_are_counted_from_1970(at_us: int) -> None:
    """Wherever the window ends, a threshold is told once in such a stretch."""
    found = quota(period="2 days", rolling=True, time_zone="Europe/Berlin")
    start, end = found.of_instant(at_us)
    assert start <= at_us < end
    assert (end - start, start % found.window_us) == (found.window_us, 0)
    assert found.window_us == 2 * DAY_US


def test_period_is_of_the_anchor_and_the_zone() -> None:
    """A billing month that begins on the 15th in Berlin."""
    found = quota(anchor=datetime(2026, 7, 15), time_zone="Europe/Berlin")  # noqa: DTZ001  # of the zone
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    at = datetime(2026, 11, 28, tzinfo=UTC) - epoch
    start, end = [
        epoch + timedelta(microseconds=each)
        for each in found.of_instant(at // timedelta(microseconds=1))
    ]
    assert start == datetime(2026, 11, 14, 23, tzinfo=UTC)
    assert end == datetime(2026, 12, 14, 23, tzinfo=UTC)


def test_a_quota_goes_to_another_process() -> None:
    """As workers that are spawned take their arguments."""
    found = quota(per=["user", "address"], thresholds=[80], anchor=datetime(2026, 1, 1, tzinfo=UTC))
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301  # pickled a moment ago


def test_lengths_of_time_are_limits_of_milliseconds() -> None:
    """For `execution_ms`, where nobody counts zeros."""
    assert milliseconds(timedelta(hours=1)) == 3_600_000


@pytest.mark.parametrize(
    "words",
    [[field.name for field in fields(Quota)], list(Counts), list(Per), ["open", "closed"]],
)
def test_every_word_is_documented(words: list[str]) -> None:
    """docs/quotas.md is complete."""
    text = DOCUMENT.read_text()
    assert [word for word in words if f"`{word}`" not in text] == []


def test_what_type_checkers_are_told_has_the_same_fields() -> None:
    """The constructor that they see is written by hand: names in their order, and defaults."""
    tree = ast.parse(inspect.getsource(model))
    (told,) = (
        node.args
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        if [each.arg for each in node.args.args[:3]] == ["self", "id", "limit"]
    )
    assert [each.arg for each in told.args[1:]] == [field.name for field in fields(Quota)]
    defaults = [eval(ast.unparse(each), vars(model)) for each in told.defaults]  # noqa: S307
    assert defaults == [field.default for field in fields(Quota) if field.default is not MISSING]
