"""`bound`: who acts, where no request says so."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from asgi_driver import metadata_of
from auditlog import LogRecord, bound
from auditlog.capture.application.bound import layers
from auditlog.capture.application.surroundings import Surroundings, surroundings
from auditlog.testing import MemorySink


def known() -> tuple[str | None, dict[str, Any]]:
    """The user and the metadata that are bound here."""
    facts = surroundings()
    return facts.user_id, dict(facts.metadata)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No test leaves anything bound."""
    yield
    assert layers.get() == ()


def test_block_names_who_acts() -> None:
    """In the columns that there are, and in the metadata; up to its end."""
    sink = MemorySink()
    with bound(user_id=7, instance_id="acme", resource_owner="org", job="nightly"):
        sink.record("cart.expired")
    sink.record("cart.expired")
    first, second = sink.records

    assert isinstance(first, LogRecord)
    assert isinstance(second, LogRecord)
    assert (first.user_id, first.resource_owner, first.instance_id) == ("7", "org", "acme")
    assert metadata_of(first) == {"audit.outcome": "ok", "job": "nightly"}
    assert (second.user_id, second.instance_id) == (None, None)
    assert metadata_of(second) == {"audit.outcome": "ok"}


def test_outside_nothing_is_known() -> None:
    """Nothing is made up."""
    assert surroundings() == Surroundings()


def test_blocks_nest() -> None:
    """The inner one adds and wins; what it does not say stays; the end restores."""
    with bound(user_id="cron", job="nightly", step=1):
        with bound(instance_id="acme", step=2):
            facts = surroundings()
            assert (facts.user_id, facts.instance_id) == ("cron", "acme")
            assert facts.metadata == {"job": "nightly", "step": 2}
        with bound(user_id="ada"):
            assert known() == ("ada", {"job": "nightly", "step": 1})
        assert known() == ("cron", {"job": "nightly", "step": 1})


def test_error_ends_the_block() -> None:
    """And passes as it is."""
    error = ValueError()
    with pytest.raises(ValueError) as raised, bound(user_id="cron"):  # noqa: PT011  # this one
        raise error
    assert raised.value is error
    assert known() == (None, {})


def test_one_binding_may_be_entered_again() -> None:
    """One after the other, within itself, and from several threads at once."""
    nightly = bound(user_id="cron")
    seen: list[tuple[str | None, dict[str, Any]]] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        with nightly:
            barrier.wait()
            seen.append(known())
            barrier.wait()
        seen.append(known())

    with nightly, nightly:
        assert known() == ("cron", {})
    assert known() == (None, {})
    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(user or "" for user, _ in seen) == [""] * 4 + ["cron"] * 4


async def test_tasks_and_to_thread_inherit_it() -> None:
    """Tasks keep it, although the block in which they were made has ended."""
    go_on = asyncio.Event()

    async def task() -> tuple[str | None, dict[str, Any]]:
        await go_on.wait()
        return known()

    with bound(user_id="cron"):
        made = asyncio.create_task(task())
        assert await asyncio.to_thread(known) == ("cron", {})
    go_on.set()
    assert await made == ("cron", {})
    assert known() == (None, {})


async def test_tasks_do_not_see_each_other() -> None:
    """Each binds for itself."""
    barrier = asyncio.Barrier(10)

    async def task(number: int) -> tuple[str | None, dict[str, Any]]:
        with bound(user_id=number):
            await barrier.wait()
            return known()

    users = await asyncio.gather(*map(task, range(10)))
    assert users == [(str(number), {}) for number in range(10)]


def test_bare_thread_begins_with_nothing() -> None:
    """As Python has it (before 3.14): documented, so a test holds it."""
    seen: list[Any] = []
    with bound(user_id="cron"):
        worker = threading.Thread(target=lambda: seen.append(known()))
        worker.start()
        worker.join()
    assert seen == [(None, {})]


def test_blocks_of_generators_may_end_in_any_order() -> None:
    """What one leaves behind does not come back when another one ends."""

    def generator(user: str) -> Iterator[None]:
        with bound(user_id=user):
            yield

    first, second = generator("first"), generator("second")
    next(first)
    next(second)
    assert known() == ("second", {})
    first.close()
    assert known() == ("second", {})
    second.close()
    assert known() == (None, {})


async def test_block_may_be_left_in_another_context() -> None:
    """An async generator that is closed by a task which did not begin it."""

    async def generator() -> AsyncIterator[None]:
        with bound(user_id="generator"):
            yield

    values = generator()

    async def begin() -> None:
        await anext(values)

    async def end() -> tuple[str | None, dict[str, Any]]:
        with bound(user_id="ada"):
            await values.aclose()  # type: ignore[attr-defined]  # a generator it is
            return known()

    await asyncio.create_task(begin())
    assert await asyncio.create_task(end()) == ("ada", {})


async def test_job_that_plans_its_next_run_piles_nothing_up() -> None:
    """Each run inherits what was bound where it was planned: one block, however many there were."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    depths: list[int] = []

    def run(number: int) -> None:
        assert known() == (
            ("cron", {"job": "nightly", "step": number - 1}) if number else (None, {})
        )
        with bound(user_id="cron"), bound(job="nightly", step=number):
            depths.append(len(layers.get()))
            if number < 20:
                loop.call_soon(run, number + 1)
            else:
                loop.call_soon(ended.set_result, None)
        expected = {"job": "nightly", "step": number - 1} if number else {}
        assert known() == ("cron" if number else None, expected)

    loop.call_soon(run, 0)
    await ended
    assert max(depths) <= 5


def test_values_are_taken_as_they_are_bound() -> None:
    """Identifiers become texts at once; None says nothing."""
    with bound(user_id="cron", instance_id="acme"), bound(user_id=None, instance_id=0):
        facts = surroundings()
        assert (facts.user_id, facts.instance_id) == ("cron", "0")


def test_it_is_no_decorator() -> None:
    """Around an async function it would end before the body begins."""
    with pytest.raises(TypeError):
        bound(user_id="cron")(lambda: None)  # type: ignore[operator]
