"""A sink that notes in which order rows are made, waited for, and messages passed on."""

from typing import Any

from asgi_driver import Run, drive
from auditlog import AuditMiddleware, LogRecord, Outcome, Settings
from auditlog.records import Record
from auditlog.testing import MemorySink
from auditlog.ticket import Ticket

DURABLE, ROOM = "durable?", "room?"


class OrderedSink(MemorySink):
    """Notes `row` or a row's stage, the types of the messages that its server is given, and waits.

    Args:
        answers: What `durable` is to say, one call after the other; True from then on.
        settings: Those of the log.
    """

    def __init__(self, *answers: bool, **settings: Any) -> None:
        super().__init__(Settings(**{"spool_dir": "/nowhere", **settings}))
        self.events: list[str] = []
        self.answers = list(answers)
        self.tickets: list[Ticket | None] = []

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        self.events.append(stage_of(record))
        self.tickets.append(ticket)
        return super().submit(record, ticket)

    async def durable(self, ticket: Ticket) -> bool:
        self.events.append(DURABLE)
        return self.answers.pop(0) if self.answers else True

    async def room(self) -> None:
        self.events.append(ROOM)

    async def run(self, app: Any, scope: Any, incoming: Any = (), **options: Any) -> Run:
        """Drive an application behind the middleware; what its server is given is noted."""
        audited = AuditMiddleware(app, audit=self, **options)
        run = await drive(audited, scope, incoming, refuse=self.passed)
        assert self.errors == []
        return run

    def passed(self, message: Any) -> None:
        """Note a message."""
        self.events.append(message["type"].removeprefix("http.").removeprefix("response."))

    def row(self, stage: str) -> LogRecord:
        """The one row of a stage."""
        (record,) = [record for record in self.records if stage_of(record) == stage]
        assert isinstance(record, LogRecord)
        return record

    def stages(self) -> list[str]:
        """The stages of all rows."""
        return [stage_of(record) for record in self.records]


def stage_of(record: Record) -> str:
    """The stage of a row; `row` where it has none."""
    metadata = record.metadata or {}  # type: ignore[union-attr]  # requests have log records
    return str(metadata.get("audit.stage", "row"))
