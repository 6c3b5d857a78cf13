"""Faults of the database: schema, rights, limits, locks, errors, crashes; mended at the end."""

import signal

from fault_postgres import OTHER_PASSWORD, PASSWORD, ROLE
from fault_scene import Scene

RESOURCE_ERRORS = ("53100", "53200", "53400", "55P03", "57014", "57P03", "40P01", "40001", "XX000")
"""A full disk, no memory, a limit, a lock, a cancelled statement, a recovery, a deadlock, a
serialization failure, an internal error: the server's, and no row's."""


def table_renamed(scene: Scene) -> None:
    """The table is away, and comes back."""
    table = scene.random.choice(("logs", "batches"))
    with scene.database.changed(
        f"ALTER TABLE logstore.{table} RENAME TO away",
        f"ALTER TABLE logstore.away RENAME TO {table}",
    ):
        scene.flow()


def schema_renamed(scene: Scene) -> None:
    """All tables are away, and come back."""
    with scene.database.changed(
        "ALTER SCHEMA logstore RENAME TO away", "ALTER SCHEMA away RENAME TO logstore"
    ):
        scene.flow()


def rights_revoked(scene: Scene) -> None:
    """The role may no longer insert, and may again."""
    with scene.database.changed(
        f"REVOKE INSERT ON logstore.logs FROM {ROLE}", f"GRANT INSERT ON logstore.logs TO {ROLE}"
    ):
        scene.flow()


def password_changed(scene: Scene) -> None:
    """The role's password is another one under load, until it is set back."""
    with scene.database.changed(
        f"ALTER ROLE {ROLE} PASSWORD '{OTHER_PASSWORD}'",
        f"ALTER ROLE {ROLE} PASSWORD '{PASSWORD}'",
        hang_up=True,
    ):
        scene.flow()


def read_only(scene: Scene) -> None:
    """As on a standby after a failover."""
    with scene.database.changed(
        f"ALTER ROLE {ROLE} SET default_transaction_read_only = on",
        f"ALTER ROLE {ROLE} RESET default_transaction_read_only",
        hang_up=True,
    ):
        scene.flow()


def too_many_connections(scene: Scene) -> None:
    """No connection is left for the role."""
    with scene.database.changed(
        f"ALTER ROLE {ROLE} CONNECTION LIMIT 0",
        f"ALTER ROLE {ROLE} CONNECTION LIMIT -1",
        hang_up=True,
    ):
        scene.flow()


def statement_timeout(scene: Scene) -> None:
    """The server ends every statement after a millisecond, while the table is locked."""
    with (
        scene.database.changed(
            f"ALTER ROLE {ROLE} SET statement_timeout = '1ms'",
            f"ALTER ROLE {ROLE} RESET statement_timeout",
            hang_up=True,
        ),
        scene.database.locked("logs"),
    ):
        scene.flow()
    scene.database.hang_up()


def table_locked(scene: Scene) -> None:
    """Longer than a statement of the writer may take."""
    with scene.database.locked(scene.random.choice(("logs", "batches"))):
        scene.flow(200)


def errors_of_the_server(scene: Scene) -> None:
    """One after the other, for every row."""
    for sqlstate in scene.random.sample(RESOURCE_ERRORS, len(RESOURCE_ERRORS)):
        with scene.database.refusing("true", sqlstate):
            scene.flow(10)


def breaking_trigger(scene: Scene) -> None:
    """A trigger that raises for every row, as one that was deployed with a mistake."""
    with scene.database.refusing("true", "P0001"):
        scene.flow()


def crashed(scene: Scene) -> None:
    """Without notice, and started again."""
    how = scene.random.choice((signal.SIGQUIT, signal.SIGKILL))
    scene.postgres.crash(how)
    scene.flow()
    scene.postgres.restart()


def backend_killed(scene: Scene) -> None:
    """The process that serves the writer; the whole server recovers from that."""
    scene.postgres.kill_backend(scene.database)


def sessions_terminated(scene: Scene) -> None:
    """By an administrator, again and again."""
    for _ in range(5):
        scene.database.hang_up()
        scene.flow(5)
