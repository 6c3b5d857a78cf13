"""SQLSTATE → what a failed batch needs. The classes themselves come from real servers elsewhere."""

import psycopg
import pytest
from psycopg import errors

from auditlog.errors import AuditLogError, EmbeddedError, MigrationError
from auditlog.sink.faults import Fault, classify, remedy

RETRY, DATA, CONFIGURATION = Fault.RETRY, Fault.DATA, Fault.CONFIGURATION


def error_of(sqlstate: str) -> psycopg.Error:
    """An error as psycopg makes it for a code, without a server."""
    return errors.lookup(sqlstate)("some text")


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
        ("23514", CONFIGURATION),  # without the name of a constraint: no partition
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
    "sqlstate", ["42P01", "42703", "42501", "28P01", "3D000", "23502", "22P03"]
)
def test_configuration_has_a_remedy_of_its_own(sqlstate: str) -> None:
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
