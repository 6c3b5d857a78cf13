"""Quotas that only the database knows, in an application that says nothing of them."""

import asyncio

import psycopg

from asgi_driver import END, START, drive, http_scope, script
from auditlog import AuditLog, AuditMiddleware, Quota, QuotaMiddleware, Quotas
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
