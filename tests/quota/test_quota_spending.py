"""`quotas.spend`: how a handler spends, who pays, and when it is taken back."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from asgi_driver import drive, http_scope
from auditlog import AuditMiddleware, Settings, annotate, bound
from auditlog.errors import QuotaError
from auditlog.quota.counting.subjects import fitting, subject_of
from auditlog.quota.model import Decision, Per, Quota, QuotaExceeded
from auditlog.testing import MemoryQuotas, MemorySink

EXPORTS = Quota("exports", limit=2, counts="reported", per="user")


@pytest.fixture
def quotas() -> MemoryQuotas:
    return MemoryQuotas(MemorySink(), [EXPORTS])


async def usage(quotas: MemoryQuotas, user_id: str = "ada", **who: Any) -> int:
    return (await quotas.spend("exports", 0, user_id=user_id, **who)).usage


async def test_awaited_it_gives_the_decision(quotas: MemoryQuotas) -> None:
    decision = await quotas.spend("exports", 2, user_id="ada", instance_id="acme")
    assert decision.allowed
    assert (decision.previous, decision.usage, decision.remaining) == (0, 2, 0)
    assert decision.key == ("exports", "acme", "user=ada")


async def test_beyond_the_limit_it_raises_with_the_decision(quotas: MemoryQuotas) -> None:
    """And spends nothing: the block is not entered."""
    await quotas.spend("exports", 2, user_id="ada")
    with pytest.raises(QuotaExceeded) as refused:
        async with quotas.spend("exports", user_id="ada"):
            pytest.fail("the block was entered")
    assert refused.value.decision.usage == 2
    assert quotas.stats().given_back == 0
    assert await usage(quotas, "ben") == 0


async def test_refusal_for_want_of_a_database_does_not_say_that_it_is_used_up() -> None:
    quotas = MemoryQuotas(
        MemorySink(), [Quota("exports", 1, counts="reported", on_unavailable="closed")]
    )
    quotas.counter.away = True
    with pytest.raises(QuotaExceeded, match="'exports' is not known, and it fails closed"):
        await quotas.spend("exports")


async def test_a_block_that_fails_takes_it_back(quotas: MemoryQuotas) -> None:
    async with quotas.spend("exports", user_id="ada") as spending:
        assert spending.decision.usage == 1
    assert await usage(quotas) == 1
    for error in (ValueError("no"), asyncio.CancelledError(), GeneratorExit()):
        with pytest.raises(type(error)):
            async with quotas.spend("exports", user_id="ada"):
                raise error
    assert await usage(quotas) == 1
    assert quotas.stats().given_back == 3


async def test_in_a_thread_it_is_a_plain_block(quotas: MemoryQuotas) -> None:
    def handler() -> Decision:
        with pytest.raises(ValueError, match="no"), quotas.spend("exports", user_id="ada"):
            raise ValueError("no")
        with quotas.spend("exports", user_id="ada") as spending:
            return spending.decision

    assert (await asyncio.to_thread(handler)).usage == 1


async def test_a_plain_block_on_a_loop_is_refused(quotas: MemoryQuotas) -> None:
    """It would hold up the loop on which it may be decided."""
    with pytest.raises(RuntimeError, match="async with"), quotas.spend("exports", user_id="ada"):
        pytest.fail("the block was entered")


async def test_a_spending_is_spent_once(quotas: MemoryQuotas) -> None:
    spending = quotas.spend("exports", user_id="ada")
    with pytest.raises(RuntimeError, match="nothing is decided yet"):
        _ = spending.decision
    await spending
    with pytest.raises(RuntimeError, match="spent already"):
        await spending
    assert await usage(quotas) == 1


def test_a_forgotten_await_is_told(quotas: MemoryQuotas) -> None:
    """Or everything would pass, and nobody would know."""
    spending = quotas.spend("exports", user_id="ada")
    with pytest.warns(RuntimeWarning, match=r"spend\('exports'\) was neither awaited nor entered"):
        del spending


async def test_who_is_not_said_is_known_from_the_request() -> None:
    """Annotated in the handler, by a dependency, or known to the middleware."""
    sink = MemorySink(Settings(instance_id="home"))
    quotas = MemoryQuotas(sink, [EXPORTS])
    decisions = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        annotate(user_id="ada")
        decisions.append(await quotas.spend("exports"))
        decisions.append(await quotas.spend("exports", user_id="ben", instance_id="acme"))

    run = await drive(AuditMiddleware(app, audit=sink), http_scope())
    assert run.error is None
    assert [decision.key.subject for decision in decisions] == ["user=ada", "user=ben"]
    assert [decision.key.instance_id for decision in decisions] == ["home", "acme"]


async def test_who_is_not_said_is_known_from_what_is_bound(quotas: MemoryQuotas) -> None:
    with bound(user_id="job", instance_id="acme"):
        decision = await quotas.spend("exports")
    assert decision.key == ("exports", "acme", "user=job")


async def test_whatever_is_said_is_spelled_as_in_the_trail(quotas: MemoryQuotas) -> None:
    """The actor of a crossing goes to the database by another way than the rows do."""
    text = "nul\x00" + "long" * 100
    order = quotas.spend("exports", user_id=text, resource_owner=text, action=text)
    assert set(order._order.actor) == {fitting(text)}
    assert (await order).allowed


@pytest.mark.parametrize("users", [("x" * 300 + "a", "x" * 300 + "b"), ("a\0b", "ab")])
async def test_users_are_told_apart_as_those_of_requests_are(users: tuple[str, str]) -> None:
    """Also where the same is stored of both in the trail."""
    sink = MemorySink()
    quotas = MemoryQuotas(sink, [Quota("calls", 1, per="user")])
    for user in users:
        decision = await quotas.spend("calls", user_id=user)
        assert decision.key.subject == subject_of((Per.USER,), {Per.USER: user}, sink.settings)


async def test_an_unknown_subject_says_which_argument(quotas: MemoryQuotas) -> None:
    with pytest.raises(QuotaError, match=r"is per user, which is not known here: pass user_id"):
        await quotas.spend("exports")
    several = MemoryQuotas(
        MemorySink(), [Quota("exports", limit=1, counts="reported", per=("organisation", "key"))]
    )
    with pytest.raises(QuotaError, match=r"organisation and key, .* pass resource_owner and subj"):
        await several.spend("exports", user_id="ada")


async def test_a_named_subject_is_that_of_the_requests() -> None:
    """A quota per key has one counter for a key, whoever spends; the key is nowhere in clear."""
    quotas = MemoryQuotas(MemorySink(), [Quota("keyed", limit=9, counts="reported", per="key")])
    decision = await quotas.spend("keyed", subject="swordfish")
    assert "swordfish" not in decision.key.subject
    parts = {decision.quota.per[0]: "swordfish"}
    assert decision.key.subject == subject_of(decision.quota.per, parts, Settings())


async def test_a_quota_per_tenant_may_have_subjects_of_the_applications() -> None:
    quotas = MemoryQuotas(MemorySink(), [Quota("builds", limit=1, counts="reported")])
    await quotas.spend("builds", subject="project-1")
    await quotas.spend("builds", subject="project-2")
    with pytest.raises(QuotaExceeded):
        await quotas.spend("builds", subject="project-2")


async def test_address_and_route_are_known_from_the_request() -> None:
    sink = MemorySink()
    quota = Quota("both", limit=9, counts="reported", per=("address", "route"), routes="/orders/*")
    quotas, subjects = MemoryQuotas(sink, [quota]), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        subjects.append((await quotas.spend("both")).key.subject)

    run = await drive(AuditMiddleware(app, audit=sink), http_scope())
    assert run.error is None
    assert subjects == ["route=/orders/*&address=192.0.2.7"]


async def test_an_unknown_quota_is_a_mistake(quotas: MemoryQuotas) -> None:
    with pytest.raises(
        QuotaError, match=r"no quota 'export' for 'default'; did you mean 'exports'"
    ):
        await quotas.spend("export", user_id="ada")
    with pytest.raises(QuotaError, match="none is defined"):
        await MemoryQuotas(MemorySink()).spend("export")


@pytest.mark.parametrize("amount", [-1, 2**53, 1.5, True, "1"])
def test_an_amount_is_a_whole_number(quotas: MemoryQuotas, amount: Any) -> None:
    with pytest.raises(QuotaError, match="amount must be a whole number"):
        quotas.spend("exports", amount)


def test_threads_spend_each_unit_once() -> None:
    quotas = MemoryQuotas(MemorySink(), [Quota("units", limit=100, counts="reported")])
    granted: list[int] = []

    def spend() -> None:
        while True:
            try:
                with quotas.spend("units") as spending:
                    granted.append(spending.decision.usage)
            except QuotaExceeded:
                return

    run(spend, threads=8)
    assert sorted(granted) == list(range(1, 101))


def run(work: Callable[[], None], threads: int) -> None:
    working = [threading.Thread(target=work) for _ in range(threads)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join()
