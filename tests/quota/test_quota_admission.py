"""All quotas have to agree; what follows when a request is over, or never was carried out."""

from typing import Any

import pytest
from quota_requests import BOTH, Desk, ended, ids, traffic

from auditlog.quota.admitting.admission import admit
from auditlog.quota.model import Quota

REFUSED = "audit.quota_refused"


@BOTH
async def test_limit_is_reached_and_not_exceeded(ask: Any) -> None:
    """Reaching it exactly is allowed; the row of the refused request says which quota it was."""
    desk = Desk(Quota("daily", 2, "day"))
    admissions = [await ask(desk, traffic(desk.request())) for _ in range(3)]

    assert [each.refusal is None for each in admissions] == [True, True, False]
    (refusal,) = desk.refusals()
    assert (refusal.quota_id, refusal.previous_usage, refusal.quota_limit) == ("daily", 2, 2)
    assert refusal.action == "GET /orders/42"


@BOTH
async def test_what_others_have_granted_is_given_back(ask: Any) -> None:
    """One refuses, none is charged; those that come after it are not asked."""
    desk = Desk(Quota("a", 9), Quota("b", 1), Quota("c", 9))
    await ask(desk, traffic(desk.request()))
    request = desk.request()
    answer = await ask(desk, traffic(request))

    assert answer.refusal is not None
    assert answer.refusal.quota.id == "b"
    assert request.metadata == {REFUSED: "b"}
    assert [desk.usage(each) for each in "abc"] == [1, 1, 1]
    ended(request, 429)
    assert [desk.usage(each) for each in "abc"] == [1, 1, 1]


@BOTH
async def test_request_that_failed_is_given_back(ask: Any) -> None:
    """When it is over; another one is not."""
    desk = Desk(Quota("a", 9))
    failed, done = desk.request(), desk.request()
    for request in (failed, done):
        await ask(desk, traffic(request))
    assert desk.usage("a") == 2

    ended(failed, 500, "server_error")
    assert desk.usage("a") == 1
    ended(done)
    assert desk.usage("a") == 1


@BOTH
async def test_bytes_are_charged_afterwards(ask: Any) -> None:
    """Whoever has something left is let pass; the next one is refused, and that is recorded."""
    desk = Desk(Quota("volume", 10, counts="bytes"))
    first, second = desk.request(), desk.request()
    answer = await ask(desk, traffic(first))
    assert (answer.refusal, ids(answer.decisions)) == (None, ["volume"])
    ended(first, bytes_in=4, bytes_out=8)

    assert desk.usage("volume") == 12
    assert (await ask(desk, traffic(second))).refusal is not None
    ended(second, 429, bytes_out=100)
    assert desk.usage("volume") == 12
    assert [row.quota_id for row in desk.refusals()] == ["volume"]


async def test_quota_that_only_observes_refuses_nobody() -> None:
    """It counts on."""
    desk = Desk(Quota("a", 1, enforced=False), Quota("v", 1, counts="bytes", enforced=False))
    for _ in range(3):
        request = desk.request()
        assert (await admit(desk.quotas, traffic(request))).refusal is None
        ended(request, bytes_in=5)

    assert (desk.usage("a"), desk.usage("v")) == (3, 15)


async def test_failed_request_costs_no_bytes() -> None:
    """What is given back elsewhere is not charged here."""
    desk = Desk(Quota("volume", 10, counts="bytes"))
    request = desk.request()
    await admit(desk.quotas, traffic(request))
    ended(request, 500, "server_error", bytes_out=8)

    assert desk.usage("volume") == 0


async def test_user_whom_a_handler_names_is_charged_afterwards() -> None:
    """Nobody is refused who is not known; the log line says so."""
    desk = Desk(Quota("mine", 1, per="user"), Quota("known", 9, counts="authenticated"))
    for _ in range(2):
        request = desk.request()
        answer = await admit(desk.quotas, traffic(request))
        assert (answer.refusal, ids(answer.decisions)) == (None, ["known"])
        request.user_id = "7"
        ended(request)

    assert (desk.usage("mine", "user=7"), desk.usage("known")) == (2, 2)


async def test_late_user_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """And what would do."""
    desk = Desk(Quota("mine", 1, per="user"))
    request = desk.request()
    await admit(desk.quotas, traffic(request))
    request.user_id = "7"
    ended(request)

    (line,) = caplog.messages
    assert line.startswith("auditlog.quota_subject_late: the quota 'mine' counts, but refuses")


async def test_nobody_is_charged_for_whom_nobody_knows() -> None:
    """Neither before nor afterwards."""
    desk = Desk(Quota("mine", 0, per="user"), Quota("keys", 0, per="key"))
    request = desk.request()
    answer = await admit(desk.quotas, traffic(request))
    ended(request)

    assert (answer.refusal, answer.decisions) == (None, [])
    assert desk.quotas.stats().charged == 0


async def test_subjects_are_counted_apart() -> None:
    """By all that a quota can be per."""
    asked = [
        ("tenant", ""),
        ("organisation", "organisation=42"),
        ("user", "user=7"),
        ("route", "route=/orders/*"),
        ("address", "address=192.0.2.7"),
    ]
    quotas = [Quota(per, 9, per=per, routes="/orders/*") for per, _ in asked]  # type: ignore[arg-type]  # one stands for a list
    desk = Desk(
        *quotas,
        user_id=lambda _: "7",
        instance_id=lambda _: "acme",
        resource_owner=lambda _: "42",
    )
    await admit(desk.quotas, traffic(desk.request()))

    assert [desk.usage(per, subject, "acme") for per, subject in asked] == [1] * len(asked)


async def test_rows_tell_who_asked_for_what() -> None:
    """Nothing that the database would refuse, and no secret of the path's."""
    desk = Desk(
        Quota("a", 0),
        user_id=lambda _: "7\0",
        instance_id=lambda _: None,
        resource_owner=lambda _: "42",
    )
    path = b"/orders/42?token=s3cret"
    await admit(desk.quotas, traffic(desk.request(raw_path=path, query_string=b"b=s3cret")))

    (row,) = desk.refusals()
    assert (row.user_id, row.resource_owner, row.action) == ("7\ufffd", "42", "GET /orders/42")


async def test_rpc_is_named_by_its_method() -> None:
    """The full one."""
    desk = Desk(Quota("a", 0))
    await admit(desk.quotas, traffic(desk.rpc(), method="Place", is_write=True))

    assert [row.action for row in desk.refusals()] == ["/shop.Orders/Place"]
