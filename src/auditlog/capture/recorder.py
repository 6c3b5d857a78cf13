"""What a capture needs from the log: the contract between traffic and sink, on one screen."""

from typing import Protocol

from auditlog.records import Outcome, Record
from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.ticket import Ticket


class Recorder(Protocol):
    """Takes records. `AuditLog` is one; `auditlog.testing.MemorySink` is another."""

    @property
    def settings(self) -> Settings:
        """What to capture and what to redact."""

    @property
    def reporter(self) -> Reporter:
        """Where a capture says what went wrong, once per reason."""

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        """Take over a record. Never raises; the caller may reuse it after.

        It blocks only where a setting says so, and never on an event loop.

        Args:
            record: One row.
            ticket: Settled when the row is as durable as `durability` asks for.
        """

    async def durable(self, ticket: Ticket) -> bool:
        """Wait until the rows of a ticket are durable; False if they are not so in time."""

    def durable_in_thread(self, ticket: Ticket) -> bool:
        """Do what `durable` does, from a thread without an event loop; blocks."""

    async def room(self) -> None:
        """Wait, if `on_overflow` is `block`, until the queue takes a row, or it takes too long."""

    def lose(self, error: BaseException) -> None:
        """Count a request of which no record could be made."""

    async def start(self) -> None:
        """Begin writing on the running loop. May be nested."""

    async def aclose(self) -> None:
        """Undo one `start`; the last one drains."""
