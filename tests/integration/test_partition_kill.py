"""kill -9 after every answer of the server's: whatever is left, the next run makes good.

After every answer before, between and behind transactions, that is: what a kill within one leaves
is what was there when it began.
"""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from auditlog.partitions.applying import apply
from auditlog.partitions.maintaining import maintain
from auditlog.partitions.model import Operation, OperationKind, Outcome, TableConfig
from auditlog.partitions.retention import deleting, detaching
from auditlog.partitions.session import maintenance
from auditlog.partitions.spans import Span
from databases import Server
from retiring_scene import (
    OLDER,
    OLDEST,
    QUICK,
    attached,
    cut_server,
    month,
    operation,
    partition,
    states,
    tables,
    told,
)

MAX_KILLS = 120
ROWS = (6, 3)


@pytest.fixture(scope="module")
def cut_database(server: Server) -> Iterator[Server]:
    with cut_server(server, ROWS) as cut:
        yield cut


@pytest.fixture(scope="module")
def any_cut_database(any_server: Server) -> Iterator[Server]:
    with cut_server(any_server, ROWS) as cut:
        yield cut


@pytest.fixture
def dsn(cut_database: Server) -> Iterator[str]:
    with cut_database.database() as dsn:
        yield dsn


@pytest.fixture
def any_dsn(any_cut_database: Server) -> Iterator[str]:
    with any_cut_database.database() as dsn:
        yield dsn


def killed(deed: Callable[[], object]) -> bool:
    """Do something in a process of its own; tell whether it was killed, and fail if it failed."""
    pid = os.fork()
    if pid == 0:
        try:
            deed()
        except BaseException:  # noqa: BLE001  # pytest is the parent's
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(trips: int) -> Callable[[], None]:
    """Let this process be killed after so many answers; returns what begins the count."""
    genuine = psycopg.Connection.wait
    counted = [-1]

    def wait(self: Any, *arguments: Any, **more: Any) -> Any:
        before = self.pgconn.transaction_status
        answer = genuine(self, *arguments, **more)
        if counted[0] >= 0 and TransactionStatus.IDLE in (before, self.pgconn.transaction_status):
            counted[0] += 1
            if counted[0] == trips:
                die()
        return answer

    psycopg.Connection.wait = wait  # type: ignore[method-assign]  # every round trip, COMMIT too

    def begin() -> None:
        counted[0] = 0

    return begin


def others_gone(conn: psycopg.Connection[Any]) -> None:
    """Return when the sessions of processes that were killed have ended."""
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    while conn.execute(query).fetchone() != (0,):
        conn.execute("SELECT pg_sleep(0.002)")


def applied_under_fire(
    dsn: str, conn: psycopg.Connection[Any], steps: list[Operation], config: TableConfig
) -> list[list[Any]]:
    """Apply steps until nobody is killed, by processes that are killed at each answer in turn.

    Whenever something has come of one, the next begins to count anew: so each state that is left
    is left at each of its answers. Returns those states in order.
    """
    seen = [_left(conn, steps, config)]
    trips = 1
    for _ in range(MAX_KILLS):
        if not killed(lambda: _apply_and_die(dsn, steps, config, trips)):  # noqa: B023  # at once
            return seen
        others_gone(conn)
        trips += 1
        if (left := _left(conn, steps, config)) != seen[-1]:
            seen.append(left)
            trips = 1
    pytest.fail("it came to no end")


def _apply_and_die(dsn: str, steps: list[Operation], config: TableConfig, trips: int) -> None:
    begin = dying_after(trips)
    with maintenance(dsn) as conn:
        begin()
        for step in steps:
            outcome = apply(conn, step, config)
            assert outcome.result in ("done", "already", "refused"), outcome


def _left(
    conn: psycopg.Connection[Any], steps: list[Operation], config: TableConfig = QUICK
) -> list[Any]:
    """What a crash has left, and that it is no contradiction."""
    name = steps[0].partition
    entries = [(state, rows) for where, state, rows, _ in states(conn) if where == name]
    is_attached, exists = name in attached(conn), name in tables(conn)
    state = entries[-1][0] if entries else None
    assert exists is (state != "dropped")
    if state in ("detached", "archived", "dropped"):
        assert not is_attached
    if state in (None, "attached", "deleting", "deleted"):
        assert is_attached
    events = [f"audit.partition.{what}" for what in ("detached", "dropped", "attached")]
    counted = [len(told(conn, event)) for event in [*events, "audit.rows.deleted"]]
    assert counted[1] == (state == "dropped")
    archives = sorted(Path(config.archive).rglob("manifest.json")) if config.archive else []
    return [entries, is_attached, exists, counted, archives]


def steps_of(conn: psycopg.Connection[Any], *kinds: OperationKind, **more: Any) -> list[Operation]:
    return [operation(conn, kind, OLDEST, **more) for kind in kinds]


def test_retirement_survives_a_kill_at_every_answer(dsn: str, tmp_path: Path) -> None:
    """Detach, archive and drop: each state is gone through, each deed is done and told once."""
    config = replace(QUICK, archive=str(tmp_path), drop_without_archive=False)
    with maintenance(dsn) as conn:
        steps = steps_of(conn, "detach", "archive", "drop")
        seen = applied_under_fire(dsn, conn, steps, config)
        *story, _ = _left(conn, steps, config)
        assert story == [[("dropped", 6)], False, False, [1, 1, 0, 0]]
        gone_through = [
            (entries[-1][0], bool(archives)) for entries, *_, archives in seen if entries
        ]
        archives = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [*dict.fromkeys(gone_through)] == [
        ("detaching", False),
        ("detached", False),
        ("detached", True),
        ("archived", True),
        ("dropped", True),
    ]
    assert len(archives) == 2, archives


def test_plain_detach_survives_a_kill_at_every_answer(any_dsn: str) -> None:
    """Beside a DEFAULT partition."""
    with maintenance(any_dsn) as conn:
        conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")
        steps = steps_of(conn, "detach")
        applied_under_fire(any_dsn, conn, steps, QUICK)
        assert _left(conn, steps) == [[("detached", 6)], False, True, [1, 0, 0, 0], []]


def test_return_survives_a_kill_at_every_answer(any_dsn: str) -> None:
    """A partition that is attached again is whole, and told of once."""
    with maintenance(any_dsn) as conn:
        conn.execute("CREATE TABLE logstore.logs_rest PARTITION OF logstore.logs DEFAULT")
        assert apply(conn, steps_of(conn, "detach")[0], QUICK).result == "done"
        steps = steps_of(conn, "attach")
        applied_under_fire(any_dsn, conn, steps, QUICK)
        assert _left(conn, steps) == [[("attached", 6)], True, True, [1, 0, 1, 0], []]


def test_deletion_survives_a_kill_at_every_answer(
    any_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are gone and rows that are counted are the same number, whenever it is."""
    monkeypatch.setattr(deleting, "BATCH_ROWS", 3)
    with maintenance(any_dsn) as conn:
        steps = steps_of(conn, "delete", tenant="tenant", before=month(1))
        seen = applied_under_fire(any_dsn, conn, steps, QUICK)
        assert _left(conn, steps) == [[("deleted", 6)], True, True, [0, 0, 0, 1], []]
        counted = [entries[-1][1] for entries, *_ in seen if entries]
    assert [*dict.fromkeys(counted)] == [None, 3, 6]


def test_run_survives_a_kill_after_every_step(any_dsn: str, tmp_path: Path) -> None:
    """Each run is killed after its first step; the one that has none left leaves all in order."""
    config = replace(
        QUICK,
        archive=str(tmp_path),
        drop_without_archive=False,
        retain=Span(months=4),
        tenants={"tenant": Span(months=3)},
    )

    def killed_at_once(_outcome: Outcome) -> None:
        die()

    with maintenance(any_dsn) as conn:
        for _ in range(MAX_KILLS):
            if not killed(lambda: maintain(any_dsn, {"logs": config}, on_done=killed_at_once)):
                break
            others_gone(conn)
        (report,) = maintain(any_dsn, {"logs": config})
        assert (report.error, report.outcomes) == (None, ())
        assert tables(conn) == attached(conn)
        assert {state for _, state, _, _ in states(conn)} <= {"dropped", "deleted"}
        assert all(is_over for _, _, _, is_over in states(conn))
        gone = sum(rows or 0 for _, state, rows, _ in states(conn) if state == "dropped")
    assert gone == 9


@pytest.mark.parametrize("how", ["client", "backend"])
def test_detach_is_killed_while_it_waits(any_dsn: str, how: str) -> None:
    """Between its two transactions: the client dies, or the server's process for it."""
    with maintenance(any_dsn) as conn, psycopg.connect(any_dsn) as reader:
        reader.execute("SELECT count(*) FROM logstore.logs")
        steps = steps_of(conn, "detach")
        pid = os.fork()
        if pid == 0:
            _apply_and_exit(any_dsn, steps)
        backend = _waiting_detach(conn)
        if how == "client":
            os.kill(pid, signal.SIGKILL)
        else:
            conn.execute("SELECT pg_terminate_backend(%s, 10000)", [backend])
        os.waitpid(pid, 0)
        assert _left(conn, steps)[:2] == [[("detaching", None)], False]
        reader.rollback()
        reader.close()
        others_gone(conn)
        (report,) = maintain(any_dsn, {"logs": QUICK})
        assert report.error is None
        assert {outcome.result for outcome in report.outcomes} <= {"done", "already"}
        assert [state for name, state, *_ in states(conn) if name == partition(OLDEST)] == [
            "dropped"
        ]
        assert partition(OLDER) not in tables(conn)


def _apply_and_exit(dsn: str, steps: list[Operation]) -> None:
    detaching.CONCURRENT_WAIT_S = 60
    try:
        with maintenance(dsn) as conn:
            apply(conn, steps[0], QUICK)
    finally:
        os._exit(0)


def _waiting_detach(conn: psycopg.Connection[Any]) -> int:
    """Wait until a DETACH CONCURRENTLY is pending and waits; return its process."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE query LIKE 'ALTER%%CONCURRENTLY'"
        " AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()"
    )
    while (row := conn.execute(query).fetchone()) is None:
        conn.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.005)")
    return int(row[0])
