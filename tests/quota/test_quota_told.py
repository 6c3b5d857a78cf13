"""Crossings on a real database: one row each and a callback, whatever becomes of those who tell."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import trail
from auditlog import AuditLog
from auditlog.quota.deciding.recording import crossing_record
from auditlog.quota.engine import driver
from auditlog.quota.model import Basis, Crossing, Key, Quota
from auditlog.quota.quotas import Quotas
from auditlog.testing import MemoryQuotas, MemorySink
from databases import Server, as_role

EXPORTS = Quota("exports", limit=10, counts="reported", exact=True, thresholds=(50, 80, 100))
DYING = Path(__file__).with_name("quota_dying.py")
NOBODY_TOLD = "UPDATE logstore.quota_crossings SET claimed_at = now() - interval '2 minutes'"
APPLICATION = """
    GRANT USAGE ON SCHEMA logstore TO {role};
    GRANT INSERT ON logstore.logs, logstore.execution_logs, logstore.quota_logs,
        logstore.batches, logstore.dead_letters TO {role};
    GRANT SELECT (batch_id) ON logstore.batches TO {role};
    GRANT SELECT ON logstore.quotas TO {role};
    GRANT EXECUTE ON FUNCTION logstore.spend_quotas(jsonb), logstore.return_quotas(jsonb),
        logstore.unfinished_crossings(interval, integer), logstore.crossings_called(uuid[])
        TO {role}
"""
"""What docs/operations.md and docs/quotas.md give to an application: it reads no row."""


@pytest.fixture(autouse=True)
def _looks_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "LOOK_EVERY_S", 0.1)


class Told:
    """A callback that keeps what it was told, and raises as often as it should."""

    def __init__(self, failures: int = 0) -> None:
        self.crossings: list[Crossing] = []
        self._failures = failures
        self._heard = threading.Condition()

    def __call__(self, crossing: Crossing) -> None:
        with self._heard:
            self.crossings.append(crossing)
            self._heard.notify_all()
            if len(self.crossings) <= self._failures:
                raise LookupError

    @property
    def percents(self) -> list[int]:
        return sorted(crossing.percent for crossing in self.crossings)

    async def several(self, number: int) -> None:
        """Wait until it was called so often."""

        def heard() -> bool:
            with self._heard:
                return self._heard.wait_for(lambda: len(self.crossings) >= number, 20)

        assert await asyncio.to_thread(heard)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # no signal tells of it
            await asyncio.sleep(0.01)


def crossings(dsn: str) -> list[tuple[int, bool, bool]]:
    """Per cent; is its row seen; was the callback done."""
    return [
        tuple(each)
        for each in trail.fetch(
            dsn,
            "SELECT jsonb_build_array(percent, stored_at IS NOT NULL, called_at IS NOT NULL)"
            " FROM logstore.quota_crossings ORDER BY percent",
        )
    ]


async def test_a_spending_that_jumps_over_all_is_told_for_each(dsn: str) -> None:
    told = Told()
    async with AuditLog(dsn, settings=trail.quick()) as audit:
        async with Quotas(audit, [EXPORTS], on_crossed=told) as quotas:
            await quotas.spend("exports", 10, user_id="ada", instance_id="acme", action="export")
            await told.several(3)
        assert quotas.stats().crossings == 3
    rows = trail.rows(dsn, "quota_logs")
    assert {row["log_id"] for row in rows} == {each.crossing_id for each in told.crossings}
    assert {row["log_date"] for row in rows} == {each.crossed_at for each in told.crossings}
    assert {
        (row["previous_usage"], row["current_usage"], row["quota_limit"], row["user_id"],
         row["resource_owner"], row["action"], row["allowed"], row["threshold_exceeded"])
        for row in rows
    } == {(0, 10, 10, "ada", "acme", "export", True, True)}  # fmt: skip
    assert crossings(dsn) == [(50, False, True), (80, False, True), (100, False, True)]


async def test_a_callback_that_raised_is_called_again_and_the_row_stays_one(
    any_server: Server,
) -> None:
    """Also where the application may not read the rows, and so cannot see that it is the same."""
    told = Told(failures=1)
    with any_server.role() as role, any_server.database() as dsn:
        trail.execute(dsn, APPLICATION.format(role=role))
        async with AuditLog(as_role(dsn, role), settings=trail.quick()) as audit:
            for failures in (1, 0):  # another process, as far as the first one is concerned
                async with Quotas(audit, [EXPORTS], on_crossed=told) as quotas:
                    if failures:
                        await quotas.spend("exports", 5, instance_id="acme")
                    await told.several(2 - failures)
                assert quotas.stats().crossings_failed == failures
                await audit.flush()
                trail.execute(dsn, NOBODY_TOLD)
            assert audit.stats().dead_lettered == 0
        assert [each.crossing_id for each in told.crossings] == [told.crossings[0].crossing_id] * 2
        assert len(trail.rows(dsn, "quota_logs")) == 1
        assert crossings(dsn) == [(50, True, True)]


async def test_a_row_that_is_there_already_counts_as_stored(any_dsn: str) -> None:
    """Two processes may tell the same crossing, if the first is held up for a minute."""
    crossed: list[Crossing] = []
    async with AuditLog(any_dsn, settings=trail.quick()) as audit:
        async with Quotas(audit, [EXPORTS], on_crossed=crossed.append) as quotas:
            await quotas.spend("exports", 5, instance_id="acme")
        await audit.flush()
        audit.submit(crossing_record(crossed[0]))
        await audit.flush()
        for record in (*trail.numbered(range(2)), crossing_record(crossed[0])):
            audit.submit(record)
        await audit.flush()
        stats = audit.stats()
        assert (stats.dead_lettered, stats.dropped, stats.pending) == (0, 0, 0)
        assert stats.written == 5
    assert len(trail.rows(any_dsn, "quota_logs")) == 1


async def test_a_row_that_was_lost_is_told_again_without_a_call(any_dsn: str) -> None:
    """The process was killed after the callback, while its row was waiting to be written."""
    told = Told()
    async with AuditLog(any_dsn, settings=trail.quick()) as audit:
        async with Quotas(MemorySink(audit.settings), [EXPORTS], on_crossed=told) as quotas:
            await quotas.spend("exports", 5, instance_id="acme")
            await told.several(1)
        assert crossings(any_dsn) == [(50, False, True)]
        trail.execute(any_dsn, NOBODY_TOLD)
        async with Quotas(audit, [EXPORTS], on_crossed=told) as quotas:
            await until(lambda: quotas.stats().crossings == 1)
    assert len(trail.rows(any_dsn, "quota_logs")) == 1
    assert len(told.crossings) == 1


@pytest.mark.parametrize("moment", ["before", "callback"])
async def test_what_a_killed_process_did_not_tell_another_one_tells(
    any_dsn: str, moment: str
) -> None:
    """Killed between the commit and the row, or in the callback, when the row may be there."""
    process = await asyncio.to_thread(
        subprocess.run, [sys.executable, DYING, any_dsn, moment], check=False
    )
    assert process.returncode == -signal.SIGKILL
    assert len(trail.rows(any_dsn, "quota_logs")) == 2 * (moment == "callback")
    assert crossings(any_dsn) == [(50, False, False), (80, False, False)]
    trail.execute(any_dsn, NOBODY_TOLD)
    told = Told()
    async with AuditLog(any_dsn, settings=trail.quick()) as audit:
        async with Quotas(audit, [EXPORTS], on_crossed=told):
            await told.several(2)
        await audit.flush()
        assert audit.stats().dead_lettered == 0
    assert told.percents == [50, 80]
    assert all(called for _, _, called in crossings(any_dsn))
    assert len(trail.rows(any_dsn, "quota_logs")) == 2


async def test_a_quota_of_the_database_is_known_to_the_first_who_spends(any_dsn: str) -> None:
    """Nothing has been read yet, nor has anything begun; a handler names it all the same."""
    trail.execute(
        any_dsn,
        "INSERT INTO logstore.quotas (quota_id, counts, quota_limit)"
        " VALUES ('stored', 'reported', 7)",
    )
    quotas = Quotas(AuditLog(any_dsn, settings=trail.quick()))
    assert (await quotas.spend("stored")).quota.limit == 7
    await quotas.aclose()
    quotas = Quotas(AuditLog(any_dsn, settings=trail.quick()))

    def handler() -> int:
        with quotas, quotas.spend("stored") as spending:
            return spending.decision.usage

    assert await asyncio.to_thread(handler) == 2


async def test_a_limit_that_is_set_in_the_database_applies_without_a_restart(any_dsn: str) -> None:
    audit = AuditLog(any_dsn, settings=trail.quick())
    async with Quotas(audit, [EXPORTS], refresh_s=0.05) as quotas:
        trail.execute(
            any_dsn,
            "INSERT INTO logstore.quotas (quota_id, counts, quota_limit)"
            " VALUES ('exports', 'reported', 1000)",
        )
        await until(lambda: quotas.definitions.get("exports", "acme") is not EXPORTS)
        assert (await quotas.spend("exports", 1000)).remaining == 0


async def test_the_double_for_tests_decides_as_the_database(any_dsn: str) -> None:
    """Spending after spending, threshold after threshold."""
    amounts, told, doubled = [3, 0, 3, 5, 4, 1, 0, 1], Told(), Told()
    audit = AuditLog(any_dsn, settings=trail.quick())
    double = MemoryQuotas(MemorySink(), [EXPORTS], on_crossed=doubled)
    decided: list[list[tuple[bool, int, int]]] = [[], []]
    async with audit, Quotas(audit, [EXPORTS], on_crossed=told) as quotas:
        for amount in amounts:
            for each, found in zip((quotas, double), decided, strict=True):
                key = Key("exports", "acme", "")
                decision = await each.decide(EXPORTS, key, amount)
                found.append((decision.allowed, decision.previous, decision.usage))
        await told.several(3)
    assert decided[0] == decided[1]
    assert told.percents == doubled.percents == [50, 80, 100]


async def test_whatever_text_a_handler_gives_is_counted(any_dsn: str) -> None:
    """One that PostgreSQL takes for none would spoil the spendings of others as well."""
    told = Told()
    audit = AuditLog(any_dsn, settings=trail.quick())
    async with audit, Quotas(audit, [EXPORTS], on_crossed=told, timeout_s=10) as quotas:
        text = "nul\x00 surrogate\ud800" + "long" * 1000
        decision = await quotas.spend(
            "exports", 5, user_id=text, resource_owner=text, instance_id=text, subject=text,
            action=text,
        )  # fmt: skip
        assert decision.basis is Basis.COUNTER
        await told.several(1)
