"""All quotas have to agree; what follows when a request is over, or never was carried out."""

import asyncio
import threading
from typing import Any

import pytest
from quota_requests import Desk, ended, ids, traffic

from auditlog.errors import SettingsError
from auditlog.quota import admission
from auditlog.quota.admission import Admission, admit, admit_in_thread, check_key, key_of
from auditlog.quota.model import Basis, Quota
from auditlog.reporting import Reporter

REFUSED = "audit.quota_refused"


async def in_thread(desk: Desk, asked: Any) -> Admission:
    """As a threaded server does."""
    return await asyncio.to_thread(admit_in_thread, desk.quotas, asked)


async def on_loop(desk: Desk, asked: Any) -> Admission:
    """As a server on an event loop does."""
    return await admit(desk.quotas, asked)


BOTH = pytest.mark.parametrize("ask", [on_loop, in_thread])


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


class Broken(Exception):  # noqa: N818  # whatever is wrong
    pass


@BOTH
@pytest.mark.parametrize("where", ["decide", "look", "give_back", "charge", "tenant_of"])
async def test_error_of_the_quotas_is_none_of_the_requests(
    ask: Any, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on, and what is wrong is reported once."""

    def broken(*_: Any) -> Any:
        raise Broken

    desk = Desk(Quota("a", 9), Quota("v", 9, counts="bytes"))
    for name in (where, f"{where}_in_thread"):
        monkeypatch.setattr(desk.quotas, name, broken, raising=False)
        monkeypatch.setattr(admission, name, broken, raising=False)
    for outcome in ("server_error", "ok"):
        request = desk.request()
        assert (await ask(desk, traffic(request))).refusal is None
        ended(request, 500, outcome, bytes_in=1)

    reasons = {line.partition(":")[0] for line in caplog.messages}
    is_late = where in {"give_back", "charge"}
    assert reasons == {"auditlog.callback_failed" if is_late else "auditlog.quota_failed"}
    assert "Broken" in caplog.text


async def test_refusal_stands_though_nothing_can_be_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is reported, the request is not carried out."""
    desk = Desk(Quota("a", 9), Quota("b", 0))
    monkeypatch.setattr(desk.quotas, "give_back", None)
    answer = await admit(desk.quotas, traffic(desk.request()))

    assert answer.refusal is not None


async def test_cancelled_while_it_waits() -> None:
    """What was granted by then is given back; the cancellation passes."""
    desk = Desk(Quota("a", 9), Quota("b", 9))
    waiting = asyncio.Event()
    decide = desk.quotas.decide

    async def hang(quota: Quota, *arguments: Any) -> Any:
        if quota.id == "b":
            waiting.set()
            await asyncio.Event().wait()
        return await decide(quota, *arguments)

    desk.quotas.decide = hang  # type: ignore[method-assign]  # a database that hangs
    request = desk.request()
    task = asyncio.create_task(admit(desk.quotas, traffic(request)))
    await waiting.wait()
    assert desk.usage("a") == 1
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    assert desk.usage("a") == 0
    ended(request, 500, "server_error")
    assert desk.usage("a") == 0


@BOTH
@pytest.mark.parametrize(("policy", "refused"), [("open", False), ("closed", True)])
async def test_database_that_is_away(ask: Any, policy: Any, refused: bool) -> None:
    """The quota's own policy decides, for what is charged afterwards, too."""
    for counts in ("requests", "bytes"):
        desk = Desk(Quota("a", 9, counts=counts, on_unavailable=policy))  # type: ignore[arg-type]  # a text stands for it
        desk.quotas.counter.away = True
        answer = await ask(desk, traffic(desk.request()))

        assert (answer.refusal is not None) is refused
        decisions = [answer.refusal] if answer.refusal else answer.decisions
        assert [each.basis for each in decisions] == [Basis.UNAVAILABLE]


async def test_request_without_a_holder_is_counted() -> None:
    """One of which the audit middleware could make nothing. It is never given back."""
    desk = Desk(Quota("a", 1))
    asked = traffic(desk.request())._replace(holder=None)

    assert (await admit(desk.quotas, asked)).refusal is None
    assert (await admit(desk.quotas, asked)).refusal is not None
    assert [row.action for row in desk.refusals()] == ["GET /orders/42"]


async def test_many_at_once_do_not_exceed() -> None:
    """From threads and from the loop."""
    desk = Desk(Quota("a", 50))
    asked = [traffic(desk.request()) for _ in range(80)]
    gate = threading.Barrier(4)

    def some(share: list[Any]) -> int:
        gate.wait()
        return sum(admit_in_thread(desk.quotas, each).refusal is None for each in share)

    shares = [asyncio.to_thread(some, asked[number::4]) for number in range(4)]
    assert sum(await asyncio.gather(*shares)) == 50


def test_key_is_asked_safely(caplog: pytest.LogCaptureFixture) -> None:
    """Anything with a text; what the application raises is reported by name."""
    reporter = Reporter()

    assert key_of(None, {}, reporter) is None
    assert key_of(lambda _: None, {}, reporter) is None
    assert key_of(lambda source: source["n"], {"n": 7}, reporter) == "7"
    assert key_of(lambda source: source["x"], {}, reporter) is None
    assert caplog.messages == [
        "auditlog.identify_failed: the callable for API keys raised KeyError"
    ]


def test_key_must_not_be_a_coroutine_function() -> None:
    """It would be true of everybody."""

    class Callable_:  # noqa: N801  # an instance is what is called
        async def __call__(self, _: Any) -> str:
            return ""

    async def function(_: Any) -> str:
        return ""

    check_key(None)
    check_key(lambda _: "")
    for key in (function, Callable_()):
        with pytest.raises(SettingsError, match="plain function"):
            check_key(key)  # type: ignore[arg-type]  # that is the mistake
