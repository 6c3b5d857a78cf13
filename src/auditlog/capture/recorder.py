"""What a capture needs from the log: the contract between traffic and sink, on one screen."""

from typing import Protocol

from auditlog.records import Outcome, Record
from auditlog.reporting import Reporter
from auditlog.settings import Settings


class Recorder(Protocol):
    """Takes records. `AuditLog` is one; `auditlog.testing.MemorySink` is another."""

    @property
    def settings(self) -> Settings:
        """What to capture and what to redact."""

    @property
    def reporter(self) -> Reporter:
        """Where a capture says what went wrong, once per reason."""

    def submit(self, record: Record) -> Outcome:
        """Take over a record. Never blocks, never raises; the caller may reuse it after."""

    def lose(self, error: BaseException) -> None:
        """Count a request of which no record could be made."""

    async def start(self) -> None:
        """Begin writing on the running loop. May be nested."""

    async def aclose(self) -> None:
        """Undo one `start`; the last one drains."""
