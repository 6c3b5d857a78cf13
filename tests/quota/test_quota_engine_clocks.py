"""Spendings and charges when the database's clock is not where the process took it to be."""

import time

import psycopg
import pytest
from quota_engines import NOBODY, Lines, running, used

from auditlog.quota.engine import exchange
from auditlog.quota.engine.clock import Span
from auditlog.quota.engine.owed import Charge
from auditlog.quota.model import Basis, Key, Quota

KEY = Key("q", "t", "s")
DAY_US = 86_400_000_000
SLICE_US = 60_000_000
"""Of a window of an hour."""


async def test_period_is_missed_as_often_as_answers_are_slow(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is there: nobody is to be told that it is away."""
    limited = Quota("q", 1, period="day", exact=True, on_unavailable="closed")
    async with running(any_dsn) as made:
        clock = made._calendar.clock
        note, errors = clock.note, iter([DAY_US] * 3)
        monkeypatch.setattr(
            clock, "note", lambda now_us, sent_at: note(now_us + next(errors, 0), sent_at)
        )
        clock._ahead_us += DAY_US
        decision = await made.ask(limited, KEY, 1, NOBODY)
        assert (decision.allowed, decision.basis) == (True, Basis.COUNTER)


async def test_units_of_a_window_are_those_of_the_slice_that_the_database_took(
    any_dsn: str,
) -> None:
    """Taken for those of the next slice, they would be spent when their own is over."""
    rolling = Quota("q", 10_000, period="hour", rolling=True)
    async with running(any_dsn, lease_s=60.0) as made:
        await made.ask(rolling, KEY, 0, NOBODY)
        made._calendar.clock._ahead_us += SLICE_US
        decision = await made.ask(rolling, KEY, 1, NOBODY)
        with psycopg.connect(any_dsn) as conn:
            ((newest,),) = conn.execute("SELECT newest FROM logstore.quota_windows")
        assert decision.period_start_us == newest * SLICE_US
        assert made._book._entries[KEY].span == Span(
            newest * SLICE_US, (newest + 1) * SLICE_US, 60 * SLICE_US
        )


async def test_charge_made_by_a_wrong_clock_finds_its_period(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's clock was wrong, and the database away until it said so."""
    monkeypatch.setattr(exchange, "SLIP_S", 0.0)
    async with running(any_dsn) as made:
        made._calendar.clock._ahead_us += 400 * DAY_US
        made.charge(Quota("q", 10, period="year"), KEY, 7, NOBODY)
    assert used(any_dsn) == 7


async def test_charge_of_a_period_that_is_over_is_not_of_the_next_one(any_dsn: str) -> None:
    limited, lines = Quota("q", 10, period="minute"), Lines()
    async with running(any_dsn, None, lines) as made:
        two_minutes_ago = time.monotonic() - 120
        span = Span(0, SLICE_US, 0)
        made._owed.charge(Charge(limited, KEY, span, 7, NOBODY, since=two_minutes_ago))
    assert lines.reasons == ["auditlog.quota_charges_lost"]
    assert used(any_dsn) == 0
