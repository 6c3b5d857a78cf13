"""Which row a batch is refused for, as real servers tell it, and that nothing hostile misleads."""

import struct

import pytest
from psycopg.conninfo import conninfo_to_dict

from auditlog.sink.database.faults import Fault, bad_row, classify
from auditlog.tables import TABLES
from poison import POISON, batch_of, changed, good, refusal, target_of
from trail import execute, fetch, ledger_agrees, rows

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
    async with target_of(dsn) as target:
        if kind == "too deep":
            name = conninfo_to_dict(dsn)["dbname"]
            execute(dsn, f"ALTER DATABASE \"{name}\" SET max_stack_depth = '100kB'")
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
        assert len(rows(dsn, TABLES[table].name)) == COUNT
        assert ledger_agrees(dsn)


async def test_row_is_found_in_a_batch_of_several_tables(dsn: str) -> None:
    """Counted within its own table, whatever was copied before."""
    async with target_of(dsn) as target:
        for table in range(len(TABLES)):
            tuples = [good(other, COUNT) for other in range(len(TABLES))]
            tuples[table][7] = changed(table, tuples[table][7], instance_id=b"\xff")
            error = await refusal(target, batch_of(*tuples))
            assert bad_row(error) == (table, 7)


async def test_row_that_is_there_already_is_found(dsn: str) -> None:
    """Behind a thousand others too, which the server adds to the index at one stroke."""
    async with target_of(dsn) as target:
        for table in range(len(TABLES)):
            tuples = good(table, 2500)
            await target.write(batch_of(*([[]] * table), [tuples[1700]]))
            error = await refusal(target, batch_of(*([[]] * table), tuples))
            assert (error.sqlstate, bad_row(error)) == ("23505", (table, 1700))


@pytest.mark.parametrize("damage", [-1, 1, 20])
async def test_tuple_of_another_length_is_found(any_dsn: str, damage: int) -> None:
    """It moves all that follows, and the server names another row, or none."""
    async with target_of(any_dsn) as target:
        tuples = good(0, COUNT)
        row = tuples[9]
        tuples[9] = row[:damage] if damage < 0 else row + bytes(damage)
        error = await refusal(target, batch_of(tuples))
        assert (classify(error), bad_row(error)) == (Fault.DATA, (0, 9))
        del tuples[9]
        await target.write(batch_of(tuples))
        assert len(rows(any_dsn)) == COUNT - 1


async def test_partition_is_not_taken_for_a_table(dsn: str) -> None:
    """Though it has the name of one; and a date that has no partition is nobody's fault."""
    _partition(dsn)
    async with target_of(dsn) as target:
        tuples = good(0, COUNT)
        error = await refusal(target, batch_of([*tuples[:9], tuples[3], *tuples[9:]]))
        assert bad_row(error) == (0, 9)
        tuples[5] = changed(0, tuples[5], log_date=struct.pack(">q", 0))
        error = await refusal(target, batch_of(tuples))
        assert (error.sqlstate, classify(error)) == ("23514", Fault.CONFIGURATION)


@pytest.mark.parametrize("place", ["BEFORE", "AFTER"])
@pytest.mark.parametrize(
    "text",
    [
        "COPY logs, line 3",
        "x\nCOPY logs, line 3\n",
        'x\nCONTEXT:  COPY logs, line 3, column message: "\n',
        'relation "logstore.logs" does not exist',
        "\nのCOPY、行 3",
    ],
)
async def test_trigger_that_quotes_the_row_does_not_mislead(
    any_dsn: str, place: str, text: str
) -> None:
    """Message, detail and context hold what the attacker wrote; the last line is the server's."""
    execute(
        any_dsn,
        """
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.message <> 'good' THEN
                PERFORM (NEW.message || chr(10) || '{')::jsonb;
            END IF;
            RETURN NEW;
        END $$;
        """
        f"CREATE TRIGGER refuse {place} INSERT ON logstore.logs"
        " FOR EACH ROW EXECUTE FUNCTION public.refuse()",
    )
    async with target_of(any_dsn) as target:
        tuples = [changed(0, row, message=b"good") for row in good(0, COUNT)]
        tuples[20] = changed(0, tuples[20], message=text.encode())
        error = await refusal(target, batch_of(tuples))
        assert classify(error) is Fault.DATA
        # After the rows are copied, no row is named: the batch is halved.
        assert bad_row(error) == ((0, 20) if place == "BEFORE" else None)


async def test_null_is_the_rows_fault_in_our_columns_only(any_dsn: str) -> None:
    """One that the operator has added has no value in any row: waiting is right."""
    async with target_of(any_dsn) as target:
        execute(any_dsn, "ALTER TABLE logstore.logs ALTER user_id SET NOT NULL")
        tuples = good(0, COUNT)
        tuples[4] = changed(0, tuples[4], user_id=None)
        error = await refusal(target, batch_of(tuples))
        assert (classify(error), bad_row(error)) == (Fault.DATA, (0, 4))
        execute(any_dsn, "ALTER TABLE logstore.logs ADD theirs text NOT NULL DEFAULT ''")
        execute(any_dsn, "ALTER TABLE logstore.logs ALTER theirs DROP DEFAULT")
        assert classify(await refusal(target, batch_of(good(0, COUNT)))) is Fault.CONFIGURATION


@pytest.mark.parametrize("kind", ["integer USING 1", "bigint USING 1", "integer USING NULL"])
async def test_column_of_another_type_is_no_rows_fault(any_dsn: str, kind: str) -> None:
    """Every row would be given up, one by one."""
    column = "log_level" if "1" in kind else "user_id"
    execute(
        any_dsn,
        "DROP INDEX logstore.logs_newest_of_user, logstore.logs_warnings_and_errors;"
        " ALTER TABLE logstore.logs DROP CONSTRAINT logs_log_level_known;"
        f" ALTER TABLE logstore.logs ALTER {column} DROP DEFAULT, ALTER {column} TYPE {kind}",
    )
    async with target_of(any_dsn) as target:
        assert classify(await refusal(target, batch_of(good(0, COUNT)))) is Fault.CONFIGURATION


async def test_connection_is_kept_for_the_rows_that_are_good(any_dsn: str) -> None:
    """Isolating thousands of bad rows does not log in thousands of times."""
    async with target_of(any_dsn) as target:
        await target.write(batch_of(good(0, 1)))
        before = fetch(any_dsn, BACKENDS)
        for _ in range(3):
            await refusal(target, batch_of([poisoned(0, "bad UTF-8")]))
        await target.write(batch_of(good(0, 1)))
        assert fetch(any_dsn, BACKENDS) == before


BACKENDS = (
    "SELECT pid FROM pg_stat_activity"
    " WHERE application_name = 'auditlog' AND datname = current_database()"
)


def _partition(dsn: str) -> None:
    """Make `logs` partitioned, with one partition from 2020 on, which has the name of a table."""
    execute(
        dsn,
        """
        ALTER TABLE logstore.logs RENAME TO logs_before;
        ALTER TABLE logstore.execution_logs RENAME TO execution_logs_before;
        CREATE TABLE logstore.logs (LIKE logstore.logs_before INCLUDING DEFAULTS)
            PARTITION BY RANGE (log_date);
        CREATE TABLE logstore.execution_logs PARTITION OF logstore.logs
            (PRIMARY KEY (instance_id, log_id))
            FOR VALUES FROM ('2020-01-01') TO ('2100-01-01');
        """,
    )
