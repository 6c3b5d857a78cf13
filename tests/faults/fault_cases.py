"""Every trial of the long version: a fault, the modes it is tried in, and what the scene needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import fault_on_database as database
import fault_on_everything as everything
import fault_on_network as network
import fault_on_records as records
import fault_on_service as service
import fault_on_spool as spool
from fault_judge import COMMIT, MEMORY, SPOOL
from fault_proxy import Harm
from fault_scene import MODES, Fault
from fault_wire import Stage

TINY: Mapping[str, Any] = {"max_queued_rows": 100}
"""A queue that an outage of the harness fills."""

HARMS = "network " + ", ".join(harm.value for harm in Harm)


@dataclass(frozen=True)
class Case:
    """One fault, in one or several modes."""

    name: str
    fault: Fault
    modes: tuple[str, ...] = MODES
    options: Mapping[str, Any] = field(default_factory=dict)
    """For `fault_scene.staged`."""
    lossless: bool = False
    """May nothing be missing, for whatever reason?"""


def cases(kills: int) -> list[Case]:
    """Return all of them.

    Args:
        kills: How often each kind of service is killed.
    """
    return [
        *_of_service(kills),
        *(replace(case, lossless=True) for case in (*_of_database(), *_of_network())),
        *_of_records(),
        *_of_spool(),
        *_of_everything(),
    ]


def _of_everything() -> list[Case]:
    return [Case("any of all these, 40 times", everything.chaos(40), options={"clock": True})]


def _of_service(kills: int) -> list[Case]:
    few = max(1, kills // 5)
    return [
        Case(f"kill -9 of the service, {kills} times", service.killed(kills)),
        *(
            Case(f"kill -9, {few} times, {kind}", service.killed(few), options={"kind": kind})
            for kind in ("grpc_aio", "grpc_sync")
        ),
        Case("kill -9 in an outage", service.killed_in_an_outage),
        Case("kill -9 while replaying", service.killed_while_replaying),
        Case("kill -9 while draining", service.killed_while_draining),
        Case("SIGTERM under traffic", service.stopped),
        Case("SIGTERM, drained behind a lock", service.stopped_while_locked),
        Case(
            "SIGTERM in an outage, no time to drain",
            service.stopped_in_an_outage,
            options={"drain_timeout_s": 1},
        ),
        Case(
            "SIGTERM in an outage, no time to drain, spool_dir",
            service.stopped_in_an_outage,
            (MEMORY, COMMIT),
            {"drain_timeout_s": 1, "spool": True},
        ),
        Case("the clock jumps by days and years", service.clock_jumps, options={"clock": True}),
        Case("gunicorn: kill -9 of a worker", service.worker_killed, options={"kind": "gunicorn"}),
        Case("gunicorn: SIGHUP", service.workers_replaced, options={"kind": "gunicorn"}),
        Case(
            "gunicorn --preload --max-requests: kill -9 of a worker",
            service.worker_killed,
            options={"kind": "gunicorn", "options": "--preload --max-requests 60"},
        ),
        Case(
            "uvicorn --workers 2: kill -9 of a worker",
            service.worker_killed,
            options={"kind": "workers"},
        ),
        Case("uvicorn --reload", service.reloaded, options={"kind": "reload"}),
    ]


def _of_database() -> list[Case]:
    return [
        Case("PostgreSQL crashes and is restarted", database.crashed),
        Case("kill -9 of its backend", database.backend_killed),
        Case("sessions terminated", database.sessions_terminated),
        Case("table renamed away and back", database.table_renamed),
        Case("schema renamed away and back", database.schema_renamed),
        Case("rights revoked and granted", database.rights_revoked),
        Case("password changed and set back", database.password_changed),
        Case("read-only", database.read_only),
        Case("too many connections", database.too_many_connections),
        Case("statement timeout", database.statement_timeout),
        Case("table locked for seconds", database.table_locked),
        Case("disk full, memory, deadlock, ... of the server", database.errors_of_the_server),
    ]


def _of_network() -> list[Case]:
    return [
        Case("connections refused", network.refused),
        Case("connections silent", network.silent),
        *(Case(f"{HARMS}: {stage.value}", network.every_harm(stage)) for stage in network.STAGES),
        Case(f"{HARMS}: {Stage.MERGE.value}", network.harmed_while_merging(*Harm), (SPOOL,)),
        Case("any of these anywhere, 20 times", network.any_harm_anywhere),
    ]


def _of_records() -> list[Case]:
    some, most = {"user": records.some}, {"user": records.most}
    return [
        Case("one row in ten refused", records.refused, options=some),
        Case("nine rows in ten refused", records.refused, options=most),
        Case("rows refused, sessions terminated", records.refused_and_cut, options=some),
        Case("rows refused, kill -9", records.refused_and_killed, options=some),
        Case("rows refused, no dead letters", records.refused_and_no_place, options=some),
        Case("a trigger that refuses every row", database.breaking_trigger),
    ]


def _of_spool() -> list[Case]:
    return [
        Case("queue full: drop_low_priority", spool.outage(500), (MEMORY,), TINY),
        Case(
            "queue full: drop_newest",
            spool.outage(500),
            (MEMORY,),
            {**TINY, "on_overflow": "drop_newest"},
        ),
        Case(
            "queue full: block",
            spool.outage(200),
            (MEMORY,),
            {**TINY, "on_overflow": "block", "block_timeout_s": 0.2},
        ),
        Case("queue full, spool_dir", spool.outage(500), (MEMORY,), {**TINY, "spool": True}),
        Case("disk of the spool full", spool.disk_full, (SPOOL,), {**TINY, "disk": True}),
        Case(
            "spool_max_bytes reached",
            spool.outage(700),
            (SPOOL,),
            {**TINY, "spool_max_bytes": 300_000},
        ),
        Case("bytes of the spool flipped and missing", spool.damaged, (SPOOL,)),
        Case("bytes flipped under the living process", spool.damaged_alive, (SPOOL,)),
        Case("a segment missing", spool.segment_missing, (SPOOL,), {"spool_max_bytes": 1_000_000}),
        Case("tail of the spool missing", spool.torn, (SPOOL,)),
        Case("header of a segment damaged", spool.header_damaged, (SPOOL,)),
        Case("two services on one spool, kill -9", spool.shared, (SPOOL,)),
    ]
