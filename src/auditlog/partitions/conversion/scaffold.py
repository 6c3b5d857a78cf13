"""What turning a table into a partitioned one, and back, have in common: names, locks, leftovers.

While `logstore.logs` is being turned, there are beside it

    logs_partitioned     the partitioned table before it takes the name, and after it gave it back
    logs_legacy          the partition of all rows from before
    logs_partition_bound the CHECK that spares the legacy partition a scan under lock

Each step finds by these names, and by the comment, what an earlier run that was killed has left.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from psycopg import Connection, sql
from psycopg.rows import class_row, tuple_row

from auditlog.errors import PartitionError
from auditlog.partitions.locking import NOT_HAD, blockers, named, persistently
from auditlog.partitions.locking import table as qualified
from auditlog.partitions.lookups import rows
from auditlog.partitions.statements import statement
from auditlog.sink.database.ledger import LOCK_LEDGER

Stage: TypeAlias = Literal["examine", "prepare", "bound", "validate", "swap", "move", "clear"]
"""`examine` the table, `prepare` the partitioned one, `bound` the rows and `validate` that, `swap`
the names; or, on the way back, `swap`, `move` the rows and `clear` what is empty."""
OnStage: TypeAlias = Callable[[Stage, str], None]
"""Called before each with what it is about, for whoever watches."""

SCAFFOLD_MARK = "auditlog scaffold"
"""The comment of `logs_partitioned` begins with it."""

LOCK_TIMEOUT_S = 1.5
"""Longer than deadlock_timeout, 1 s, or autovacuum is never cancelled (2026-11-28)."""
TRIES = 20
"""Some 40 s: who converts a table can wait that long; writers wait for one turn at a time."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table that is converted."""

    name: str
    is_primary: bool
    is_unique: bool
    tail: str
    """What follows the table's name in the statement that makes it."""
    comment: str | None

    def created(self, table: str, name: str) -> list[sql.Composable]:
        """Return the statements that make the same for another table, under another name."""
        create = _UNIQUE_INDEX if self.is_unique else _INDEX
        return [
            create.format(sql.Identifier(name), qualified(table)) + vouched(self.tail),
            sql.SQL("COMMENT ON INDEX {} IS {}").format(qualified(name), self.comment),
        ]


@dataclass(frozen=True, slots=True)
class Dependents:
    """The statements that make whatever refers to a table refer to the one that has its name."""

    views: tuple[sql.Composable, ...] = ()
    publications: tuple[sql.Composable, ...] = ()


def scaffold(table: str) -> str:
    """Return the name of the partitioned table while it is not in use."""
    return f"{table}_partitioned"


def legacy(table: str) -> str:
    """Return the name of the partition of the rows from before."""
    return f"{table}_legacy"


def renamed(index: str, name: str) -> sql.Composable:
    """Return the statement that gives an index, and its constraint, another name."""
    return sql.SQL("ALTER INDEX {} RENAME TO {}").format(qualified(index), sql.Identifier(name))


def indexes_of(conn: Connection[Any], oid: int) -> list[Index]:
    """Return a table's indexes."""
    with conn.cursor(row_factory=class_row(Index)) as cursor:
        return cursor.execute(statement("conversion/indexes"), {"table": oid}).fetchall()


def dependents(conn: Connection[Any], oid: int, table: str, other: str) -> Dependents:
    """Return what refers to a table by its identity, which will be called otherwise."""
    names = {"called": f"logstore.{table}", "other": f"logstore.{other}"}
    found = rows(conn, "conversion/dependents", table=oid, **names)
    return Dependents(
        *(
            tuple(vouched(row["statement"]) for row in found if row["kind"] == wanted)
            for wanted in ("view", "publication")
        )
    )


def execute(conn: Connection[Any], *statements: sql.Composable) -> None:
    """Execute statements without parameters, in one round trip."""
    if statements:
        conn.execute(sql.SQL(";\n").join(statements))


def asked(conn: Connection[Any], query: str, *parameters: object) -> tuple[Any, ...] | None:
    """Return the first row of a query, if there is one."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query.encode(), parameters).fetchone()


def swap(conn: Connection[Any], table: str, deed: Callable[[], T]) -> T:
    """Do something under locks in one transaction, again for as long as they are not to be had.

    Raises:
        PartitionError: they were not to be had at all; says who has them.
    """

    def in_order() -> T:
        # The ledger first, as writers and migrations do.
        conn.execute(LOCK_LEDGER)
        return deed()

    try:
        return persistently(conn, in_order, timeout_s=LOCK_TIMEOUT_S, tries=TRIES)
    except NOT_HAD as error:
        who = named(blockers(conn, [table]))
        raise PartitionError(f"logstore.{table} cannot be locked: {who}") from error


def traits(
    conn: Connection[Any], source: int, target: str, kinds: Iterable[str]
) -> list[sql.Composable]:
    """Return the statements that give a table what another one has of some kinds."""
    wanted = set(kinds)
    found = rows(conn, "conversion/traits", source=source, target=f"logstore.{target}")
    return [vouched(row["statement"]) for row in found if row["kind"] in wanted]


def dressed(parent: str, other: str) -> sql.Composable:
    """Return the statement that gives a table another's owner, row security and guard, no more."""
    return sql.SQL("SELECT logstore.dress_partition({}::regclass, {}::regclass)").format(
        f"logstore.{parent}", f"logstore.{other}"
    )


def vouched(text: str) -> sql.Composable:
    """Take a statement that the catalog's own functions have quoted."""
    return sql.SQL(text)


_INDEX = sql.SQL("CREATE INDEX {} ON {}")
_UNIQUE_INDEX = sql.SQL("CREATE UNIQUE INDEX {} ON {}")
