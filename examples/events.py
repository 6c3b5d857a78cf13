"""A nightly job with an audit trail: events of the application's own, without a request.

Run it on a PostgreSQL that you have, after `auditlog migrate`:

    pip install 'auditlog-postgres[cli]'
    AUDITLOG_DSN=postgresql://... python examples/events.py
    auditlog tail --dsn postgresql://...
"""

import os

import psycopg

from auditlog import AuditLog, LogLevel, annotate_event, audited, bound

unreachable = {13}


@audited("invoice.reminded", target=lambda invoice: ("invoice", invoice))
def remind(invoice: int) -> None:
    """Every call is a row, with its outcome; what it raises is recorded, and passes unchanged."""
    annotate_event(channel="mail")
    if invoice in unreachable:
        raise ConnectionError("the mail server is away")


def remind_all(audit: AuditLog) -> int:
    """A run's lines go to logstore.execution_logs, with the stack trace of what failed."""
    reminded = 0
    with audit.execution("dunning-2026-11", "dunning") as execution:
        execution.info("begun", invoices=2)
        for invoice in (7, 13):
            try:
                remind(invoice)
                reminded += 1
            except ConnectionError as error:
                execution.exception(error, f"invoice {invoice} has to wait")
    return reminded


def pay(audit: AuditLog, connection: psycopg.Connection, invoice: int) -> None:
    """The row commits or rolls back with the change that it tells of."""
    with connection.transaction():
        connection.execute("UPDATE invoices SET paid = true WHERE number = %s", [invoice])
        audit.record_within(
            connection,
            "invoice.paid",
            target=("invoice", invoice),
            before={"paid": False},
            after={"paid": True},
        )
        if invoice in unreachable:
            raise ConnectionError("the bank is away")  # neither is stored


def main() -> None:
    dsn = os.environ["AUDITLOG_DSN"]
    # Who does all this, said once.
    with (
        bound(user_id="job:dunning", resource_owner="acme"),
        AuditLog(dsn) as audit,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        connection.execute("CREATE TABLE IF NOT EXISTS invoices (number int, paid boolean)")
        connection.execute("INSERT INTO invoices VALUES (7, false), (13, false)")
        audit.record(
            "dunning.finished",
            message="Not everybody could be reminded",
            level=LogLevel.WARN,
            reminded=remind_all(audit),  # any other keyword goes into the row's metadata
        )
        pay(audit, connection, 7)
        try:
            pay(audit, connection, 13)
        except ConnectionError as error:
            print(f"invoice 13 stays unpaid: {error}")
    # Here everything that was recorded is in the database.


if __name__ == "__main__":
    main()
