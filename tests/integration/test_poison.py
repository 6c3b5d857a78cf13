"""Which row a batch is refused for, as real servers tell it, and that nothing hostile misleads."""

import psycopg
import pytest

from auditlog.sink.faults import Fault, bad_row, classify
from auditlog.tables import TABLES
from poison import POISON, batch_of, changed, good, refusal, target_of
from trail import ledger_agrees, rows

TABLE_NAMES = [table.name for table in TABLES]
COUNT = 40


def poisoned(table: int, kind: str) -> bytes:
    columns = POISON[kind][1]
    return changed(table, good(table, 1)[0], **columns)


def applicable() -> list[tuple[int, str]]:
    return [
        (index, kind)
        for index, table in enumerate(TABLES)
        for kind, (_, columns) in POISON.items()
        if columns.keys() <= set(table.column_names)
    ]


@pytest.mark.parametrize(("table", "kind"), applicable())
async def test_poison_is_found_wherever_it_stands(dsn: str, table: int, kind: str) -> None:
    """At the beginning, inside and at the end, with another behind it; then the rest is stored."""
    target = target_of(dsn)
    if kind == "too deep":
        with psycopg.connect(dsn, autocommit=True) as conn:
            database = conn.info.dbname
            conn.execute(f"ALTER DATABASE \"{database}\" SET max_stack_depth = '100kB'".encode())
    for position in (0, COUNT // 2, COUNT - 1):
        tuples = good(table, COUNT)
        tuples[position] = poisoned(table, kind)
        if position < COUNT - 1:
            tuples[-1] = poisoned(table, kind)
        batch = batch_of(*([[]] * table), tuples)
        error = await refusal(target, batch)
        assert error.sqlstate == POISON[kind][0], error
        assert classify(error) is Fault.DATA
        assert bad_row(error) == (table, position)
    await target.write(batch_of(*([[]] * table), good(table, COUNT)))
    await target.close()
    assert len(rows(dsn, TABLES[table].name)) == COUNT
    assert ledger_agrees(dsn)
