"""A database that is there and does not let the engine count: a missing right, a standby."""

import asyncio
import os
import signal
import time
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from quota_engines import NOBODY, Lines, running, until

import trail
from auditlog.postgres import embedded
from auditlog.quota.model import Basis, Key, Quota
from databases import Server, as_role
from own_server import own_server
from proxies import Proxy

KEY = Key("q", "t", "s")
OPEN = Quota("open", 9, period="year", exact=True)
CLOSED = Quota("closed", 9, period="year", exact=True, on_unavailable="closed")
GRANTS = (
    "GRANT SELECT ON logstore.quotas TO {role}",
    "GRANT EXECUTE ON FUNCTION logstore.spend_quotas(jsonb), logstore.return_quotas(jsonb),"
    " logstore.unfinished_crossings(interval, integer), logstore.crossings_called(uuid[])"
    " TO {role}",
)


async def test_missing_right_is_named_and_counting_begins_when_it_is_granted(
    any_server: Server,
) -> None:
    """What was allowed meanwhile is charged then."""
    lines = Lines()
    with any_server.role() as role, any_server.database() as dsn:
        trail.execute(dsn, f"GRANT USAGE ON SCHEMA logstore TO {role}")
        async with running(as_role(dsn, role), None, lines) as made:
            for quota, allowed in ((OPEN, True), (CLOSED, False)):
                decision = await made.ask(quota, KEY, 1, NOBODY)
                assert (decision.allowed, decision.basis) == (allowed, Basis.UNAVAILABLE)
            assert {"auditlog.quota_database_failed", "auditlog.quota_definitions_failed"} == set(
                lines.reasons
            )
            for grant in GRANTS:
                assert all(grant.format(role="...") in line for line in lines.messages)
            for grant in GRANTS:
                trail.execute(dsn, grant.format(role=role))
            await trail.until(lambda: trail.fetch(dsn, "SELECT used FROM logstore.quota_usage"))
            decision = await until(Basis.COUNTER, lambda: made.ask(CLOSED, KEY, 1, NOBODY))
            assert decision.allowed


def test_standby_is_left_as_soon_as_there_is_a_primary(any_dsn: str) -> None:
    """Its connection works, and would for ever; where it leads is for the next one to find out."""

    async def main(standby: str) -> None:
        lines = Lines()
        with Proxy(standby) as proxy:
            async with running(proxy.dsn, None, lines) as made:
                assert not (await made.ask(CLOSED, KEY, 1, NOBODY)).allowed
                assert all("takes no writes" in line for line in lines.messages)
                proxy._target = conninfo_to_dict(any_dsn)
                await until(Basis.COUNTER, lambda: made.ask(CLOSED, KEY, 1, NOBODY))

    # A client names its database when it connects: both servers have one of that name.
    name = conninfo_to_dict(any_dsn)["dbname"]
    with own_server() as path:
        with embedded.start(path) as server:
            trail.execute(server.dsn, f"CREATE DATABASE {name}")
            _make_standby(path)
        with embedded.start(path) as server:
            asyncio.run(main(make_conninfo(server.dsn, dbname=name)))


def _make_standby(path: Path) -> None:
    """Restarted, it waits for a primary that never comes."""
    signal_file = path / "standby.signal"
    signal_file.touch()
    owner = (path / "PG_VERSION").stat()
    os.chown(signal_file, owner.st_uid, owner.st_gid)
    postmaster = int((path / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGINT)
    while Path(f"/proc/{postmaster}").exists():
        time.sleep(0.01)
