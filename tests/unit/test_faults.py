"""SQLSTATE → what a failed batch needs, and its row. Real servers tell the same elsewhere."""

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import DiagnosticField

from auditlog.errors import AuditLogError, EmbeddedError, MigrationError
from auditlog.sink.database.faults import (
    Fault,
    RowError,
    bad_row,
    classify,
    entering_ledger,
    note_copying,
    remedy,
    sqlstate_of,
)

RETRY, DATA, CONFIGURATION = Fault.RETRY, Fault.DATA, Fault.CONFIGURATION


def error_of(sqlstate: str, text: str = "some text", **fields: str) -> psycopg.Error:
    """An error as psycopg makes it for a code, without a server; with fields of its message."""
    info = {DiagnosticField[name.upper()]: value.encode() for name, value in fields.items()}
    try:
        kind = errors.lookup(sqlstate)
    except KeyError:
        return psycopg.DatabaseError(
            text, info={DiagnosticField.SQLSTATE: sqlstate.encode()} | info
        )
    return kind(text, info=info or None)


def copy_error(context: str, table: int | None = 0) -> psycopg.Error:
    error = error_of("22021", context=context)
    if table is not None:
        note_copying(error, table)
    return error


@pytest.mark.parametrize(
    ("sqlstate", "fault"),
    [
        ("08006", RETRY),  # connection failure
        ("25006", RETRY),  # read-only, as after a failover
        ("40001", RETRY),  # serialisation failure
        ("40P01", RETRY),  # deadlock
        ("53100", RETRY),  # disk full
        ("53200", RETRY),  # out of memory
        ("53300", RETRY),  # too many connections
        ("55P03", RETRY),  # lock not available
        ("57014", RETRY),  # statement timeout, or cancelled
        ("57P01", RETRY),  # administrator's shutdown
        ("57P03", RETRY),  # the server is starting
        ("58030", RETRY),  # input or output error
        ("XX000", RETRY),  # internal error
        ("22001", DATA),
        ("22003", DATA),
        ("22008", DATA),
        ("22021", DATA),
        ("22P02", DATA),
        ("22P05", DATA),
        ("23505", DATA),
        ("44000", DATA),  # a view with a check option
        ("P0001", DATA),  # a trigger of the operator's
        ("54000", DATA),
        ("54001", DATA),
        ("22P03", CONFIGURATION),  # a column of another type
        ("22P04", CONFIGURATION),
        ("23502", CONFIGURATION),  # a column added as NOT NULL
        ("23514", DATA),
        ("20000", DATA),  # a CASE of a trigger's that has no branch
        ("27000", DATA),
        ("ACME1", DATA),  # whatever a trigger calls it
        ("25P03", RETRY),  # idle in a transaction for too long
        ("25P04", RETRY),  # a transaction too long
        ("57P05", RETRY),  # idle for too long
        ("72000", RETRY),
        ("HV00N", RETRY),  # what a trigger writes to is elsewhere, and away
        ("0A000", CONFIGURATION),
        ("28P01", CONFIGURATION),
        ("3D000", CONFIGURATION),
        ("3F000", CONFIGURATION),
        ("42501", CONFIGURATION),
        ("42703", CONFIGURATION),
        ("42P01", CONFIGURATION),
    ],
)
def test_class_of_a_code(sqlstate: str, fault: Fault) -> None:
    """Only what can succeed is retried; only what is a row's fault is split."""
    assert classify(error_of(sqlstate)) is fault


@pytest.mark.parametrize(
    "sqlstate",
    [
        *("42P01", "42703", "42501", "28P01", "3D000", "23502", "22P03"),
        *("53100", "55P03", "57014", "XX001", "XX002"),
    ],
)
def test_what_somebody_has_to_mend_has_a_remedy_of_its_own(sqlstate: str) -> None:
    """Somebody has to act, so the text says how."""
    assert remedy(error_of(sqlstate)) != remedy(error_of("08006"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('FATAL:  password authentication failed for user "x"', "check user, password"),
        ("FATAL:  SASL authentication failed", "check user, password"),
        ('FATAL:  no pg_hba.conf entry for host "::1"', "check user, password"),
        ("fe_sendauth: no password supplied", "check user, password"),
        ('FATAL:  role "x" does not exist', "check user, password"),
        ("FATAL:  no such user: x", "check user, password"),
        ('invalid port number: "p@ss"', "the DSN is not a connection string"),
        ('invalid integer value "x" for connection option "port"', "the DSN is not a connection"),
        ('FATAL:  database "x" does not exist', "the database does not exist"),
        ("FATAL:  no such database: x", "the database does not exist"),
    ],
)
def test_refused_login_is_known_by_its_text(text: str, expected: str) -> None:
    """There is no SQLSTATE for a connection that was refused."""
    error = psycopg.OperationalError(f"connection failed: {text}")
    assert classify(error) is CONFIGURATION
    assert remedy(error).startswith(expected)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection failed: Connection refused"),
        psycopg.OperationalError("connection failed: No such file or directory"),
        psycopg.OperationalError("the connection is closed"),
        psycopg.errors.ConnectionTimeout("connection timeout expired"),
        ConnectionResetError(),
        TimeoutError(),
        OSError("no file descriptors"),
        RuntimeError("a database that does not exist"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failure_without_a_code_is_the_networks(error: Exception) -> None:
    """It is retried, whatever its text."""
    assert classify(error) is RETRY
    assert "when the database is back" in remedy(error)


def test_dsn_that_is_none_is_nothing_to_wait_for() -> None:
    """The driver's own parser says so, on a real example."""
    with pytest.raises(psycopg.ProgrammingError) as caught:
        psycopg.conninfo.make_conninfo("this is no dsn")
    assert classify(caught.value) is CONFIGURATION
    assert "postgresql://USER:PASSWORD@HOST/DATABASE" in remedy(caught.value)


@pytest.mark.parametrize("kind", [EmbeddedError, MigrationError])
def test_own_errors_bring_their_remedy(kind: type[AuditLogError]) -> None:
    """As from `embedded:` without the extra: waiting does not install it."""
    error = kind("pip install 'auditlog-postgres[embedded]'")
    assert classify(error) is CONFIGURATION
    assert remedy(error) == "pip install 'auditlog-postgres[embedded]'"


def test_lack_of_a_partition_is_the_schemas() -> None:
    """A CHECK that is violated has a name, and a trigger that raises the code has no table."""
    assert classify(error_of("23514", table_name="logs")) is CONFIGURATION
    assert classify(error_of("23514", table_name="logs", constraint_name="theirs")) is DATA


def test_bound_of_an_interrupted_conversion_is_no_rows_fault() -> None:
    error = error_of("23514", table_name="logs", constraint_name="logs_partition_bound")
    assert classify(error) is CONFIGURATION
    assert "auditlog partitions enable" in remedy(error)


def test_only_our_ledger_is_the_ledger() -> None:
    """By its constraints, or because it was being written."""
    assert (
        classify(error_of("23505", schema_name="logstore", table_name="batches")) is CONFIGURATION
    )
    assert classify(error_of("23505", schema_name="public", table_name="batches")) is DATA
    with pytest.raises(psycopg.Error) as caught, entering_ledger():
        raise error_of("P0001")
    assert classify(caught.value) is CONFIGURATION
    assert "logstore.batches" in remedy(caught.value)


def test_null_in_a_column_of_ours_is_a_rows_fault() -> None:
    """And in one that somebody has added it is the schema's."""
    assert classify(error_of("23502", column_name="user_id")) is DATA
    assert classify(error_of("23502", column_name="theirs")) is CONFIGURATION
    assert classify(error_of("23502", column_name="theirs", schema_name="public")) is DATA


@pytest.mark.parametrize("code", ["08P01", "58000", "XX000", "XXUUU"])
@pytest.mark.parametrize(
    "before", ["", "ERROR:  ", "server login has been failing, cached error: "]
)
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('duplicate key value violates unique constraint "logs_pkey"', DATA),
        ('invalid byte sequence for encoding "UTF8": 0xff', DATA),
        ("unsupported Unicode escape sequence", DATA),
        ("invalid input syntax for type json", DATA),
        ("smallint out of range", DATA),
        ("value overflows numeric format", DATA),
        ("value too long for type character varying(9)", DATA),
        ('index row size 3016 exceeds btree version 4 maximum 2704 for index "x"', DATA),
        ("stack depth limit exceeded", DATA),
        ('new row for relation "logs" violates check constraint "x"', DATA),
        ('no partition of relation "logs" found for row', CONFIGURATION),
        ('relation "logstore.logs" does not exist', CONFIGURATION),
        ('schema "logstore" does not exist', CONFIGURATION),
        ('column "x" of relation "logs" does not exist', CONFIGURATION),
        ("permission denied for table logs", CONFIGURATION),
        ('password authentication failed for user "x"', CONFIGURATION),
        ('role "x" does not exist', CONFIGURATION),
        ('database "x" does not exist', CONFIGURATION),
        ('null value in column "theirs" of relation "logs"', CONFIGURATION),
        ("insufficient data left in message", CONFIGURATION),
        ("cannot execute INSERT in a read-only transaction", RETRY),
        ("terminating connection due to administrator command", RETRY),
        ("server conn crashed?", RETRY),
        ("query_wait_timeout", RETRY),
        ("restart transaction: TransactionRetryWithProtoRefreshError", RETRY),
        ("kind mismatch among backends", RETRY),
        ("some text", RETRY),
    ],
)
def test_code_that_a_proxy_hides_is_known_by_the_text(
    code: str, before: str, text: str, fault: Fault
) -> None:
    """As from PgBouncer, Pgpool-II and forks, whose own code tells nothing."""
    assert classify(error_of(code, before + text)) is fault
    assert classify(psycopg.OperationalError(before + text)) is fault


@pytest.mark.parametrize(
    "text",
    [
        'trigger says "relation "logstore.logs" does not exist"',
        "x: permission denied for table logs",
        'x\nrelation "logstore.logs" does not exist',
        'server login "x": permission denied for table logs',
    ],
)
def test_text_out_of_a_row_does_not_pause_the_writer(text: str) -> None:
    """Only how a message begins is the server's for certain."""
    assert classify(error_of("XX000", text)) is RETRY
    assert classify(error_of("22P02", 'relation "logs" does not exist')) is DATA


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("server closed the connection unexpectedly", "08006"),
        ("consuming input failed: SSL connection has been closed unexpectedly", "08006"),
        ("SSL SYSCALL error: EOF detected", "08006"),
        ("the connection is lost", ""),
        ('connection to server at "h", port 1 failed: session is read-only', "25006"),
        ("FATAL:  unsupported startup parameter: options", "0A000"),
        ("FATAL:  pgbouncer cannot connect to server", "57P03"),
        ("FATAL:  all backend nodes are down, pgpool requires at least one valid node", "57P03"),
        ("FATAL:  no more connections allowed (max_client_conn)", "53300"),
        ("FATAL:  SASL authentication failed", "28P01"),
        ("FATAL:  auth failed", "28P01"),
    ],
)
def test_connection_that_fails_is_known_by_its_text(text: str, code: str) -> None:
    """Libpq gives no code at all."""
    error = psycopg.OperationalError(text)
    assert sqlstate_of(error) == code
    assert classify(error) is (CONFIGURATION if code[:2] in ("28", "0A") else RETRY)


LINES = [
    ("COPY logs, line 322, column message", "en"),
    ("COPY logs, line 322", "en"),
    ("COPY logs, Zeile 322, Spalte message", "de"),
    ("COPY logs, línea 322, columna message", "es"),
    ("COPY logs, ligne 322, colonne message", "fr"),
    ("COPY logs, riga 322, colonna message", "it"),
    ("logsのCOPY、行 322、列 message", "ja"),
    ("logsのCOPY、行 322", "ja"),
    ("COPY logs, ხაზი 322, სვეტი message", "ka"),
    ("logs 복사, 322번째 줄, message 열", "ko"),
    ("logs 복사, 322번째 줄", "ko"),
    ("COPY logs, linia 322, kolumna message", "pl"),
    ("COPY logs, linha 322, coluna message", "pt_BR"),
    ("COPY logs, строка 322, столбец message", "ru"),
    ("COPY logs, rad 322, kolumn message", "sv"),
    ("COPY logs, satır 322, kolon message", "tr"),
    ("COPY logs, рядок 322, стовпець message", "uk"),
    ("COPY logs, 行 322, 列 message", "zh_CN"),
    ("COPY logs_2026_11, line 322, column message", "a partition"),
    ("COPY l, 1, ogs, line 322, column message", "a partition with a strange name"),
]


@pytest.mark.parametrize(("line", "language"), LINES)
def test_row_is_read_in_every_language(line: str, language: str) -> None:
    """As PostgreSQL's translations have it; binary COPY counts from 1."""
    assert bad_row(copy_error(line)) == (0, 321)
    assert bad_row(copy_error(line, 2)) == (2, 321)
    hostile = 'JSON data, line 1: COPY logs, line 7\nCOPY logs, line 3, column "\n'
    assert bad_row(copy_error(hostile + line)) == (0, 321)


@pytest.mark.parametrize(
    "context",
    [
        "",
        "COPY logs",
        "JSON data, line 1: {",
        "COPY logs, line 3\nPL/pgSQL function refuse(a, b) line 3 at RAISE",
        "PL/pgSQL function logstore.refuse(text, text) line 3 at RAISE",
        'SQL statement "SELECT 1, line 3"',
        "COPY logs, line 0",
        "COPY logs, line x",
        "COPY logs, line 99999999999999999999",
        'COPY logs, line 3, column message: "a, 4"',
    ],
)
def test_context_that_names_no_row_gives_none(context: str) -> None:
    """Text COPY quotes the row; nobody here uses it, and nothing is read out of it."""
    assert bad_row(copy_error(context)) is None


def test_only_an_error_of_a_copy_names_a_row() -> None:
    """Not one of the connection, nor one from elsewhere that has such a context."""
    assert bad_row(copy_error("COPY logs, line 3", table=None)) is None
    assert bad_row(OSError()) is None
    assert bad_row(psycopg.OperationalError("COPY logs, line 3")) is None
    error = RowError("22P04", 1, 7, "it is no tuple")
    assert (bad_row(error), classify(error)) == ((1, 7), DATA)
