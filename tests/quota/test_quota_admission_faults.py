"""What goes wrong while quotas are asked is none of the request's; what was granted is not lost."""

import asyncio
import threading
from typing import Any

import pytest
from quota_requests import BOTH, Desk, ended, traffic

from auditlog.capture.shared import refuse_coroutine
from auditlog.errors import SettingsError
from auditlog.quota.admitting import admission
from auditlog.quota.admitting.admission import admit, admit_in_thread, key_of
from auditlog.quota.model import Basis, Quota
from auditlog.reporting import Reporter

REFUSED = "audit.quota_refused"


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

    refuse_coroutine("key", None)
    refuse_coroutine("key", lambda _: "")
    for key in (function, Callable_()):
        with pytest.raises(SettingsError, match="plain function"):
            refuse_coroutine("key", key)  # type: ignore[arg-type]  # that is the mistake
