"""A trail whose rows become durable, or do not, as a test wants it; rows by request and stage."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rpc_trail import WAIT_S, Trail, metadata

from auditlog import LogRecord, Outcome, Settings
from auditlog.records import Record
from auditlog.testing import MemorySink
from auditlog.ticket import Ticket

STRICT = ("spool", "commit")
TIMEOUT_S = 2.0


def settings_of(durability: str, **more: Any) -> Settings:
    """What each durability needs; nothing is written to that folder."""
    return Settings(
        durability=durability,
        spool_dir="unused" if durability == "spool" else None,
        commit_timeout_s=TIMEOUT_S,
        **more,
    )


class DurableTrail(Trail):
    """Rows are durable at once; of what is `held`, when it is let go; of `hopeless`, never."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._holding = threading.Event()
        self._tickets: list[Ticket] = []
        self.waiting = threading.Semaphore(0)
        """Released by each request that begins to wait."""
        self.hopeless_from: int | None = None
        """Rows with a ticket are durable before this one, and not from then on."""
        self.waited_for: list[str] = []
        """The threads in which somebody has waited."""
        self._ticketed = 0

    def submit(self, record: Record, ticket: Ticket | None = None) -> Outcome:
        with self._changed:
            if ticket is None:
                outcome = MemorySink.submit(self, record)
            else:
                outcome = self._submit_with(record, ticket)
            self._changed.notify_all()
        return outcome

    def _submit_with(self, record: Record, ticket: Ticket) -> Outcome:
        if self._holding.is_set():
            ticket.expect()
            self._tickets.append(ticket)
            return MemorySink.submit(self, record)
        self._ticketed += 1
        first = self.hopeless_from
        self.durable_in_time = first is None or self._ticketed < first
        return MemorySink.submit(self, record, ticket)

    async def durable(self, ticket: Ticket) -> bool:
        self._note_wait()
        return await ticket.awaited(self.settings.commit_timeout_s)

    def durable_in_thread(self, ticket: Ticket) -> bool:
        self._note_wait()
        assert not _is_on_loop()
        return ticket.wait(self.settings.commit_timeout_s)

    def _note_wait(self) -> None:
        self.waited_for.append(threading.current_thread().name)
        self.waiting.release()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing become durable meanwhile."""
        self._holding.set()
        try:
            yield
        finally:
            self.let_go()

    def let_go(self) -> None:
        self._holding.clear()
        tickets, self._tickets = self._tickets, []
        for ticket in tickets:
            ticket.settle(durable=True)

    def stages_of(self, request_id: str) -> list[str]:
        return [stage_of(row) for row in self.of(request_id)]

    def wait_for_stage(self, request_id: str, stage: str) -> LogRecord:
        """Wait for a request's row of a stage, which must be the only one."""
        with self._changed:
            assert self._changed.wait_for(lambda: stage in self.stages_of(request_id), WAIT_S), (
                self.stages_of(request_id)
            )
        (row,) = [row for row in self.of(request_id) if stage_of(row) == stage]
        return row


def stage_of(row: LogRecord) -> str:
    """A row that stands alone is complete."""
    return str(metadata(row).get("audit.stage", "complete"))


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
