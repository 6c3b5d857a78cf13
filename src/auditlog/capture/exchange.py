"""One request in flight, whatever its protocol: how it becomes a row.

A capture makes one exchange per request, feeds it what passes by, and calls `finish` once. The
exchange asks the policy, redacts, and hands a `LogRecord` to the recorder. Where rows are to be
durable before the answer, `announce_durably` and `finish_before_end` come before that.
"""

import time
from contextlib import suppress
from typing import Any

from auditlog.capture.in_flight import Identity, InFlight, Operations
from auditlog.capture.late import late_row, said
from auditlog.capture.outcomes import LEVEL_OF, OK
from auditlog.capture.policy import Decision, Level, Rule
from auditlog.capture.stages import (
    COMPLETE,
    RECEIVED,
    left_out_row,
    make_complete,
    received_row,
    remains_row,
)
from auditlog.records import LogLevel, LogRecord
from auditlog.reporting import describe
from auditlog.ticket import Ticket

__all__ = ["Exchange", "Identity", "Operations"]

_ERROR = int(LogLevel.ERROR)
_NOTHING, _NO_HEADERS = Level.NONE, Level.METADATA


class Exchange(InFlight):
    """The protocol's part fills it in; `finish` submits it."""

    __slots__ = ()

    def announce(self) -> None:
        """Submit a row that says the request has begun, if a rule asks for it; never raises.

        Worth a call only where `policy.announces`. From then on the request owes a complete row,
        which `finish` submits whatever is left out of it: a received row without one is what a
        killed process leaves behind.
        """
        try:
            rule = self.capture.policy.wants_received(self.protocol, self.method, self.path)
            if rule is not None:
                self._submit_received(rule.level, rule)
        except Exception as failure:  # noqa: BLE001  # never an error of the request
            if self.exchange_id is not None:
                self._submit_remains(failure, RECEIVED)

    def announce_durably(self) -> Ticket | None:
        """Do what `announce` does for every request that no rule exempts; never raises.

        Returns:
            What to wait for before the application may run; None if the request is exempt. From
            then on its other rows are under the same ticket.
        """
        try:
            level, rule = self.capture.policy.at_beginning(self.protocol, self.method, self.path)
            if level is _NOTHING:
                return None
            self.ticket = Ticket()
            self._submit_received(level, rule)
        except Exception as failure:  # noqa: BLE001  # never an error of the request
            # Whatever is broken, the request is not served without a row.
            self.ticket = self.ticket or Ticket()
            self.exchange_id = self.row_id()
            self._submit_remains(failure, RECEIVED)
        return self.ticket

    def finish_before_end(self, error: BaseException | None = None) -> None:
        """Do what `finish` does, before the last message of the answer is passed on.

        Where a row is to be durable before its request is answered, this is the last moment. What
        is said afterwards, and an error that comes then, is for the row that `finish` adds.
        """
        self._make_row(error)
        self.said_before = said(self)

    def finish(self, error: BaseException | None) -> None:
        """Conclude, decide and submit; never raises, whatever the application did."""
        if self.said_before is None:
            self._make_row(error)
        else:
            self._finish_late(self.said_before, error)
        waiting, self.waiting = self.waiting, None
        if waiting:
            self.tell(waiting)

    def _make_row(self, error: BaseException | None) -> None:
        try:
            self.conclude(error)
            if not self.ended_ns:
                self.ended_ns = time.perf_counter_ns()
            if (self.skipped or not self._submit()) and self.exchange_id is not None:
                self.hand_over(left_out_row(self))
        except Exception as failure:  # noqa: BLE001  # never an error of the request
            self._submit_remains(failure, COMPLETE)

    def _submit(self) -> bool:
        """Submit what the policy decides; return whether there is a row at all."""
        if self.operations is not None and self.operations.submit():
            return True
        capture = self.capture
        if capture.asks or self.knows_user():
            self.user_id, self.resource_owner, self.instance_id = self.identity()
        route = self.route()
        decision = capture.policy.decide(
            self.protocol,
            self.method,
            self.path,
            route,
            self.status,
            self.outcome,
            self.user_id,
            self.instance_id or capture.tenant,
        )
        if decision.level is _NOTHING:
            return False
        headers = (
            None if decision.level is _NO_HEADERS else capture.redactor.headers(self.raw_headers)
        )
        self.hand_over(self._record(decision, route, headers))
        return True

    def _record(
        self, decision: Decision, route: str | None, headers: dict[str, list[str]] | None
    ) -> LogRecord:
        outcome, level, message = self.outcome, self.level, self.message
        if level is None:
            # A background task may break after the client was served.
            level = _ERROR if self.error_type and outcome is OK else LEVEL_OF[outcome]
        low_priority = decision.low_priority
        # By position, in the order of the record's fields: by name it takes 1.6 times as long.
        record = LogRecord(
            self.started_us,
            self.protocol,
            self.target(),
            self.method,
            headers,
            self.status,
            (self.ended_ns - self.started_ns) // 1_000_000,
            self.user_id,
            self.resource_owner,
            self.aggregate_type,
            self.aggregate_id,
            self.event_type,
            self.event_sequence,
            level,
            message if message is None else self.capture.redactor.text(message),
            self._metadata(decision, route, headers),
            self.instance_id,
            # Fixed here: a task that outlives the request may still name it.
            self.row_id(),
            None,
            outcome is OK if low_priority is None else low_priority,
        )
        if self.exchange_id is not None:
            make_complete(self, record, decision)
        return record

    def _metadata(
        self, decision: Decision, route: str | None, headers: dict[str, list[str]] | None
    ) -> dict[str, Any]:
        metadata = self.facts(headers)
        if route is not None and self.route_key is not None:
            metadata[self.route_key] = route
        if decision.rule is not None:
            metadata["audit.rule"] = decision.rule
        if self.error_type is not None:
            metadata["error.type"] = self.error_type
        self.describe(metadata, decision)
        if not self.metadata:
            return metadata
        # What we say comes first, for a row that is too large is cut from the end, and last, for
        # it is not overwritten by what a handler says.
        merged = {**metadata, **self.capture.redactor.json(self.metadata), **metadata}
        # A handler may pass on what a client sent, which must not end another's exchange.
        merged.pop("audit.stage", None)
        merged.pop("audit.exchange_id", None)
        merged.pop("audit.refused", None)
        return merged

    def _submit_received(self, level: Level, rule: Rule | None) -> None:
        # What refers to the request refers to this row: the other is still to come.
        self.exchange_id = self.row_id()
        self.hand_over(received_row(self, level, rule))

    def _finish_late(self, before: tuple[Any, ...], error: BaseException | None) -> None:
        """Add a row, if there is anything that the request's own does not tell."""
        try:
            if self.operations is not None:
                self.operations.submit()
            if error is not None:
                self.note_error(error)
            # The row that stands cannot be unsaid by a late skip(), but this one can.
            record = None if self.skipped else late_row(self, before, error)
            self.said_before = said(self)
            if record is not None:
                self.capture.recorder.submit(record)
        except Exception as failure:  # noqa: BLE001  # never an error of the request
            self._lose(failure)

    def _submit_remains(self, failure: Exception, stage: str) -> None:
        """Record what is certain when the rest could not be put together."""
        try:
            self.hand_over(remains_row(self, stage, failure))
            self.capture.recorder.reporter.report(
                "auditlog.capture_incomplete", f"a row lacks details: {describe(failure)}"
            )
        except Exception as error:  # noqa: BLE001  # the last net but one
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        # A log of the application's own may fail here, too.
        with suppress(Exception):
            self.capture.recorder.lose(error)
        if self.ticket is not None:
            self.ticket.expect()
            self.ticket.settle(durable=False)
