"""`Quotas`: what it decides, counts and tells, through its life."""

import asyncio
import dataclasses
import logging
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from asgi_driver import drive, http_scope
from auditlog import AuditLog, AuditMiddleware, Settings, SettingsError
from auditlog.metrics import QuotasCollector
from auditlog.quota.deciding.stats import QuotaStats
from auditlog.quota.model import Actor, Basis, Key, Quota, QuotaExceeded
from auditlog.quota.quotas import Quotas
from auditlog.testing import MemoryQuotas, MemorySink

NOWHERE = "host=127.0.0.1 port=1 dbname=nowhere"
UNITS = Quota("units", limit=10, counts="reported", thresholds=(50,))
KEY = Key("units", "acme", "")
ADA = Actor("ada", "org-1", "export")


@pytest.fixture
def quotas() -> MemoryQuotas:
    return MemoryQuotas(MemorySink(), [UNITS])


def records(quotas: Quotas) -> list[Any]:
    assert isinstance(quotas.recorder, MemorySink)
    return quotas.recorder.records


async def test_a_decision_is_one_in_threads_and_on_loops(quotas: MemoryQuotas) -> None:
    assert (await quotas.decide(UNITS, KEY, 5, ADA)).usage == 5
    decision = await asyncio.to_thread(quotas.decide_in_thread, UNITS, KEY, 5, ADA)
    assert (decision.allowed, decision.usage) == (True, 10)
    assert not (await quotas.decide(UNITS, KEY, 1, ADA)).allowed
    assert not quotas.decide_in_thread(UNITS, KEY, 1, ADA).allowed
    assert (await quotas.decide(UNITS, KEY, 0)).usage == 10
    stats = quotas.stats()
    assert (stats.allowed, stats.refused, stats.asks, stats.crossings) == (3, 2, 5, 1)


async def test_a_look_is_allowed_while_anything_is_left(quotas: MemoryQuotas) -> None:
    """For what is charged afterwards: the refusal it leads to is counted and has a row."""
    quotas.charge(UNITS, KEY, 9, ADA)
    assert (await quotas.look(UNITS, KEY)).allowed
    quotas.charge(UNITS, KEY, 1, ADA)
    assert not (await quotas.look(UNITS, KEY)).allowed
    quotas.charge(UNITS, KEY, 8, ADA)
    quotas.charge(UNITS, KEY, 0, ADA)
    look = quotas.look_in_thread(UNITS, KEY)
    assert (look.allowed, look.usage, look.amount) == (False, 18, 0)
    await quotas.counter.told()
    records(quotas).clear()
    quotas.refuse(look, ADA)
    (row,) = records(quotas)
    assert (row.allowed, row.user_id, row.action, row.current_usage) == (False, "ada", "export", 18)
    assert (quotas.stats().refused, quotas.stats().charged) == (1, 3)


async def test_a_look_at_what_is_only_observed_is_allowed() -> None:
    observed = Quota("units", limit=10, counts="reported", enforced=False)
    quotas = MemoryQuotas(MemorySink(), [observed])
    quotas.charge(observed, KEY, 99)
    assert (await quotas.look(observed, KEY)).allowed
    assert (await quotas.decide(observed, KEY, 5)).usage == 104


async def test_only_what_was_granted_is_given_back(quotas: MemoryQuotas) -> None:
    granted = await quotas.decide(UNITS, KEY, 10)
    refused = await quotas.decide(UNITS, KEY, 1)
    for decision in (refused, await quotas.decide(UNITS, KEY, 0), granted):
        quotas.give_back(decision)
    assert (await quotas.look(UNITS, KEY)).usage == 0
    assert quotas.stats().given_back == 1


async def test_a_database_that_is_away_is_decided_by_the_quota(
    quotas: MemoryQuotas, caplog: pytest.LogCaptureFixture
) -> None:
    """What is allowed then is charged when it is back; and all of it is told."""
    closed = Quota("closed", limit=10, counts="reported", on_unavailable="closed")
    quotas.counter.away = True
    with caplog.at_level(logging.WARNING, "auditlog"):
        opened = await quotas.decide(UNITS, KEY, 11, ADA)
        refused = await quotas.decide(closed, KEY, 1, ADA)
    assert (opened.allowed, opened.basis) == (True, Basis.UNAVAILABLE)
    assert (refused.allowed, refused.basis) == (False, Basis.UNAVAILABLE)
    assert "auditlog.quota_unavailable" in caplog.text
    assert [row.allowed for row in records(quotas)] == [False]
    stats = quotas.stats()
    assert (stats.allowed, stats.refused) == (1, 1)
    assert (stats.allowed_unavailable, stats.refused_unavailable) == (1, 1)
    quotas.counter.away = False
    assert (await quotas.look(UNITS, KEY)).usage == 11


async def test_the_row_of_the_request_says_that_nobody_counted() -> None:
    """Also where nothing but a look was to be had."""
    sink = MemorySink()
    quotas = MemoryQuotas(sink, [UNITS])
    quotas.counter.away = True

    async def spends(scope: Any, receive: Any, send: Any) -> None:
        await quotas.spend("units")

    async def looks(scope: Any, receive: Any, send: Any) -> None:
        assert (await quotas.look(UNITS, KEY)).allowed

    for app in (spends, looks):
        assert (await drive(AuditMiddleware(app, audit=sink), http_scope())).error is None
    said = [record.metadata.get("audit.quota_unavailable") for record in records(quotas)]
    assert said == ["open", "open"]


def test_quotas_need_a_database() -> None:
    with pytest.raises(SettingsError, match="MemoryQuotas"):
        Quotas(MemorySink())


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "1"])
def test_a_time_is_above_zero(seconds: Any) -> None:
    with pytest.raises(SettingsError, match="timeout_s must be a number of seconds above 0"):
        MemoryQuotas(MemorySink(), timeout_s=seconds)


async def test_the_counter_is_started_once_and_ended_by_the_last(quotas: MemoryQuotas) -> None:
    async with quotas:
        async with quotas:
            assert quotas.counter.starts == 1
        assert quotas.counter.starts == 1
    assert quotas.counter.starts == 0


def test_quotas_that_are_forgotten_leave_no_thread() -> None:
    quotas = Quotas(AuditLog(NOWHERE, settings=Settings()), [UNITS], timeout_s=0.01)
    quotas.decide_in_thread(UNITS, KEY, 1)
    running = threads("auditlog")
    assert running
    forgotten = weakref.ref(quotas)
    del quotas
    assert forgotten() is None
    for thread in running:
        thread.join(20)
        assert not thread.is_alive()


async def test_nor_a_task_where_they_run_on_a_loop() -> None:
    """A task of the application's loop, in the end, is none of the application's."""
    others = asyncio.all_tasks()
    quotas = Quotas(AuditLog(NOWHERE, settings=Settings()), [UNITS], timeout_s=0.01)
    await quotas.spend("units")
    tasks = asyncio.all_tasks() - others
    assert tasks
    del quotas
    _, running = await asyncio.wait(tasks, timeout=20)
    assert not running


def test_a_child_process_begins_at_nothing(quotas: MemoryQuotas) -> None:
    """What its parent has counted would be counted twice, by whoever adds them up."""
    quotas.decide_in_thread(UNITS, KEY, 1)
    with held_by_another_thread(quotas._lifecycle):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            quotas.close()
            os._exit(quotas.stats().allowed)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert quotas.stats().allowed == 1


async def test_the_clock_of_a_test_is_its_own(quotas: MemoryQuotas) -> None:
    await quotas.decide(UNITS, KEY, 10)
    refused = await quotas.decide(UNITS, KEY, 1)
    quotas.counter.advance(refused.resets_in_s)
    assert (await quotas.decide(UNITS, KEY, 1)).usage == 1


async def test_a_rolling_window_counts_until_it_has_left() -> None:
    rolling = Quota("units", limit=2, period="minute", counts="reported", rolling=True)
    quotas = MemoryQuotas(MemorySink(), [rolling])
    await quotas.decide(rolling, KEY, 1)
    quotas.counter.advance(30)
    await quotas.decide(rolling, KEY, 1)
    quotas.counter.advance(30)
    refused = await quotas.decide(rolling, KEY, 1)
    assert not refused.allowed
    assert (await quotas.decide(rolling, KEY, 2)).resets_in_s == refused.resets_in_s + 30
    assert (await quotas.decide(rolling, KEY, 3)).resets_in_s == 60
    quotas.counter.advance(refused.resets_in_s - 0.000_001)
    assert not (await quotas.decide(rolling, KEY, 1)).allowed
    quotas.counter.advance(0.000_001)
    assert (await quotas.decide(rolling, KEY, 1)).allowed
    with pytest.raises(QuotaExceeded):
        await quotas.spend("units", instance_id="acme")


@contextmanager
def held_by_another_thread(lock: Any) -> Iterator[None]:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            release.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    yield
    release.set()
    thread.join()


def test_every_number_of_the_stats_is_exposed(
    quotas: MemoryQuotas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that is added to `QuotaStats` and forgotten there is noticed."""
    before = samples(quotas)
    for field in dataclasses.fields(QuotaStats):
        stats = QuotaStats(**{field.name: 1})
        monkeypatch.setattr(quotas, "stats", lambda stats=stats: stats)
        assert len(set(samples(quotas)) - set(before)) == 1, field.name


def samples(quotas: Quotas) -> list[str]:
    registry = CollectorRegistry()
    registry.register(QuotasCollector(quotas))
    return generate_latest(registry).decode().splitlines()


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]
