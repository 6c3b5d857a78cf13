"""`ApplicationEvents`: what a log offers to the application itself, beside taking records.

Calls come from coroutines, threads and signal handlers; records go to `submit`. Nothing here
blocks or raises, but for `record_within`: of an event that cannot be put together the loss is
counted. The policy is not asked: it judges requests, and an event is recorded because the
application says so.
"""

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import uuid_utils

from auditlog.capture.application.event import event_record
from auditlog.capture.application.execution import Execution
from auditlog.capture.outcomes import OK
from auditlog.capture.redaction.redactor import Redactor
from auditlog.records import Instant, LogLevel, LogRecord, Outcome, Record
from auditlog.reporting import Reporter
from auditlog.settings import Settings


class ApplicationEvents:
    """The base of `AuditLog` and `MemorySink`.

    Raises:
        SettingsError: a key or a name for redaction that cannot work.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.reporter = Reporter()
        self.redactor = Redactor.of(settings)

    def submit(self, record: Record) -> Outcome:
        """Take over a record."""
        raise NotImplementedError

    def lose(self, error: BaseException) -> None:
        """Count an event of which no record could be made."""
        raise NotImplementedError

    def record(
        self,
        event_type: object,
        /,
        *,
        user_id: object = None,
        target: tuple[object, object] | None = None,
        before: object = None,
        after: object = None,
        message: object = None,
        level: int = LogLevel.INFO,
        outcome: str = OK,
        resource_owner: object = None,
        instance_id: object = None,
        event_sequence: int | None = None,
        occurrence_date: Instant | None = None,
        **metadata: Any,
    ) -> Outcome:
        """Record an event of the application's own; from anywhere, without waiting.

        Who, for which organisation and which tenant is taken from `bound` and from the request
        being served, unless it is said here. Within a request the row names the request's row in
        `audit.parent_id`, and is kept whatever `skip` and the policy do to that one.

        Args:
            event_type: What happened, in the application's words: `"order.refunded"`.
            user_id: Who did it. Like the other identifiers, anything with a fitting `str`.
            target: What it was done to, as type and identifier: `("order", 42)`.
            before: What the target was, stored as JSON under `audit.before`.
            after: What it is now, under `audit.after`. Secrets in both are redacted.
            message: One sentence for people.
            level: A `LogLevel`.
            outcome: A `RequestOutcome`: how it went, stored as `audit.outcome`.
            resource_owner: The organisation to whom the target belongs.
            instance_id: The tenant.
            event_sequence: The position in the application's own event stream.
            occurrence_date: When it happened, if that was not now.
            metadata: More, stored as JSON. Fields with a secret's name are redacted.

        Returns:
            What became of it, as `submit` has it.
        """
        try:
            record = event_record(
                self.redactor,
                event_type,
                user_id=user_id,
                resource_owner=resource_owner,
                instance_id=instance_id,
                target=target,
                event_sequence=event_sequence,
                before=before,
                after=after,
                message=message,
                level=level,
                outcome=outcome,
                occurrence_date=occurrence_date,
                metadata=metadata,
            )
        except Exception as error:  # noqa: BLE001  # never an error of the application
            self.lose(error)
            return Outcome.DROPPED
        return self.submit(record)

    def record_within(
        self,
        connection: Any,
        event_type: object,
        /,
        *,
        user_id: object = None,
        target: tuple[object, object] | None = None,
        before: object = None,
        after: object = None,
        message: object = None,
        level: int = LogLevel.INFO,
        outcome: str = OK,
        resource_owner: object = None,
        instance_id: object = None,
        event_sequence: int | None = None,
        occurrence_date: Instant | None = None,
        **metadata: Any,
    ) -> str:
        """Record an event in the caller's own transaction: with the change, or not at all.

        Takes what `record` takes, behind a connection of psycopg 3, or a Session or Connection of
        SQLAlchemy 2. The row is inserted through it here and now, so this blocks as any statement
        does, needs no started log, and is none of `stats`. On a connection in autocommit it is
        committed at once.

        Returns:
            The `log_id` of the row.

        Raises:
            TypeError: not such a connection; nothing was sent.
            Exception: the connection's own; the transaction is aborted then, as by any statement.
        """
        record = self._identified(
            event_type,
            metadata,
            user_id=user_id,
            target=target,
            before=before,
            after=after,
            message=message,
            level=level,
            outcome=outcome,
            resource_owner=resource_owner,
            instance_id=instance_id,
            event_sequence=event_sequence,
            occurrence_date=occurrence_date,
        )
        self._insert(connection, record)
        return str(record.log_id)

    async def arecord_within(
        self,
        connection: Any,
        event_type: object,
        /,
        *,
        user_id: object = None,
        target: tuple[object, object] | None = None,
        before: object = None,
        after: object = None,
        message: object = None,
        level: int = LogLevel.INFO,
        outcome: str = OK,
        resource_owner: object = None,
        instance_id: object = None,
        event_sequence: int | None = None,
        occurrence_date: Instant | None = None,
        **metadata: Any,
    ) -> str:
        """Do what `record_within` does, through an asynchronous connection or session."""
        record = self._identified(
            event_type,
            metadata,
            user_id=user_id,
            target=target,
            before=before,
            after=after,
            message=message,
            level=level,
            outcome=outcome,
            resource_owner=resource_owner,
            instance_id=instance_id,
            event_sequence=event_sequence,
            occurrence_date=occurrence_date,
        )
        await self._ainsert(connection, record)
        return str(record.log_id)

    def execution(
        self, execution_id: object, target_id: object, *, instance_id: object = None
    ) -> Execution:
        """Begin to keep the lines of one run of an action; for `with` and `async with`.

        Args:
            execution_id: The run. Like the other identifiers, anything with a fitting `str`.
            target_id: What the run was for.
            instance_id: The tenant; that of `bound` or of the request being served without it.
        """
        return Execution(
            self._hand_over,
            self.redactor,
            self.settings.max_row_bytes,
            execution_id=execution_id,
            target_id=target_id,
            instance_id=instance_id,
        )

    def _make_known(self) -> None:
        """Let `audited` find this log, once it is complete."""
        # Called as pop(key, reference): the reference serves as the default.
        _living[id(self)] = weakref.ref(self, partial(_living.pop, id(self)))

    def _make_unknown(self) -> None:
        _living.pop(id(self), None)

    def _insert(self, connection: Any, record: LogRecord) -> None:
        """Store a record through a connection of the caller's."""
        raise NotImplementedError

    async def _ainsert(self, connection: Any, record: LogRecord) -> None:
        """Do the same through an asynchronous one."""
        raise NotImplementedError

    def _identified(
        self, event_type: object, metadata: Mapping[str, Any], **said: Any
    ) -> LogRecord:
        """Make the record of an event whose caller is told its identifier."""
        record = event_record(self.redactor, event_type, metadata=metadata, **said)
        record.log_id = str(uuid_utils.uuid7())
        return record

    def _hand_over(self, make: Callable[[], Record]) -> Outcome:
        try:
            record = make()
        except Exception as error:  # noqa: BLE001  # never an error of the application
            self.lose(error)
            return Outcome.DROPPED
        return self.submit(record)


def living_logs() -> list[ApplicationEvents]:
    """Return the logs of this process that are not forgotten yet."""
    return [log for reference in list(_living.values()) if (log := reference()) is not None]


# Not a WeakSet: it cannot be read while another thread makes a log.
_living: dict[int, "weakref.ref[ApplicationEvents]"] = {}
