"""Quotas that only the database knows, in an application that says nothing of them."""

import asyncio

import psycopg
import pytest

from asgi_driver import END, START, drive, http_scope, script
from auditlog import AuditLog, AuditMiddleware, Quota, QuotaError, QuotaMiddleware, Quotas
from auditlog.quota.keeping import store
from trail import quick


async def test_they_apply_without_a_lifespan_too(any_dsn: str) -> None:
    """The first request begins the reading of them."""
    with psycopg.connect(any_dsn, autocommit=True) as conn:
        store.put(conn, Quota("daily", limit=0))
    async with AuditLog(any_dsn, settings=quick()) as audit:
        quotas = Quotas(audit)
        app = AuditMiddleware(QuotaMiddleware(script(START, END), quotas=quotas), audit=audit)
        statuses = []
        for _ in range(1000):
            statuses.append((await drive(app, http_scope(), [])).sent[0]["status"])
            if statuses[-1] == 429:
                break
            await asyncio.sleep(0.02)  # for what reads them runs on this loop
        assert statuses[-1] == 429
        await quotas.aclose()


async def test_waiting_for_definitions_that_cannot_be_read_leaves_nothing_behind(
    any_dsn: str,
) -> None:
    """However often it is waited."""
    with psycopg.connect(any_dsn, autocommit=True) as conn:
        conn.execute("ALTER TABLE logstore.quotas RENAME COLUMN counts TO counted")
    audit = AuditLog(any_dsn, settings=quick())
    async with audit, Quotas(audit, timeout_s=0.05) as quotas:
        for _ in range(5):
            with pytest.raises(QuotaError, match="has not been heard"):
                await quotas.spend("daily")
        chained = vars(quotas._catalogue.read_once)["_done_callbacks"]
        assert len(chained) == 1


async def test_nobody_waits_for_definitions_while_the_database_is_away() -> None:
    """Neither the loop nor a thread."""
    audit = AuditLog("postgresql://127.0.0.1:1/nowhere", settings=quick())
    async with Quotas(audit, timeout_s=30) as quotas:
        with pytest.raises(QuotaError, match="has not been heard"):
            async with asyncio.timeout(10):
                await quotas.spend("daily")
