"""`AuditedCall`: one call of an audited function, and the event that it becomes.

It is entered before the function runs and left when it has returned or raised; then the event is
recorded. What the function itself adds comes through `annotate_event`. An exception passes
unchanged, and none is added: what fails in here is reported.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

from auditlog.capture.application.arguments import Question
from auditlog.capture.application.event import event_record
from auditlog.capture.application.events import ApplicationEvents, living_logs
from auditlog.capture.context import current, pair_of, text_of
from auditlog.capture.outcomes import CANCELLED, DENIED, OK, SERVER_ERROR
from auditlog.records import LogLevel, LogRecord
from auditlog.reporting import Reporter, describe

Audit: TypeAlias = ApplicationEvents | Callable[[], ApplicationEvents] | None
"""A log, a function that returns one, or None: the request's, or the only one there is."""
Questions: TypeAlias = tuple[tuple[str, Question], ...]

_LEVELS = {SERVER_ERROR: int(LogLevel.ERROR)}
_WARN = int(LogLevel.WARN)
_NUMBERS = ("level", "event_sequence")
_UNCERTAIN = (
    "it is not certain which log is meant: pass audit= to audited(), a log or a function that"
    " returns one"
)

# For what goes wrong where there is no log to report it.
_reporter = Reporter()


@dataclass(frozen=True, slots=True)
class Plan:
    """What all calls of one audited function have in common."""

    name: str
    """Of the function, for log lines."""
    event_type: str
    level: int
    audit: Audit
    values: Mapping[str, Any]
    """What every event has, by the names of `event_record`."""
    early: Questions
    """What is asked before the call, which may change its arguments."""
    late: Questions
    """What needs the result."""
    metadata: Mapping[str, Any]

    def log(self) -> ApplicationEvents:
        """Return the log to write to.

        Raises:
            LookupError: there is none, or it is not certain which; the text says what to do.
        """
        if self.audit is None:
            holder = current.get()
            if holder is not None and isinstance(holder.recorder, ApplicationEvents):
                return holder.recorder
            logs = living_logs()
            if len(logs) != 1:
                raise LookupError(_UNCERTAIN)
            return logs[0]
        if isinstance(self.audit, ApplicationEvents):
            return self.audit
        try:
            log = self.audit()
        except Exception as error:  # noqa: BLE001  # the application's code may do anything
            raise LookupError(f"the function of audit= raised {describe(error)}") from None
        if not isinstance(log, ApplicationEvents):
            raise LookupError(
                f"the function of audit= must return an AuditLog, not {type(log).__name__}"
            )
        return log

    def report(self, reason: str, message: str, level: int = logging.WARNING) -> None:
        """Say what went wrong around a call."""
        try:
            reporter = self.log().reporter
        except LookupError:
            reporter = _reporter
        reporter.report(reason, f"{self.name}: {message}", level=level)


class AuditedCall:
    """A context manager around one call; whoever enters it puts the `result` here."""

    __slots__ = (
        "_args",
        "_details",
        "_kwargs",
        "_outer",
        "_plan",
        "_started_ns",
        "_started_us",
        "_values",
        "postponed",
        "result",
    )

    def __init__(self, plan: Plan, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.result: Any = None
        self.postponed = False
        self._plan, self._args, self._kwargs = plan, args, kwargs
        self._outer: AuditedCall | None = None
        self._details: dict[str, Any] = {}
        self._values = dict(plan.values)
        if plan.early:
            self._ask(plan.early)
        # The wall clock says when, the monotonic one how long: the wall may be set meanwhile.
        self._started_us = time.time_ns() // 1000
        self._started_ns = time.perf_counter_ns()

    def __enter__(self) -> Self:
        self._outer = at_hand.get()
        at_hand.set(self)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        elapsed_ms = (time.perf_counter_ns() - self._started_ns) // 1_000_000
        # Not by token: a coroutine may be closed in another context than it began in.
        if at_hand.get() is self:
            at_hand.set(self._outer)
        # Tasks that were begun in the call may outlive it, and still lead here: each of a chain
        # of them would keep the call before it, with its arguments, for ever.
        self._outer = None
        if self.postponed:
            return
        self._submit(error, elapsed_ms)
        self._args, self._kwargs, self.result = (), {}, None

    def add(self, values: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Take what the function says about its event, as it is now."""
        self._values.update(values)
        if details:
            with suppress(LookupError):  # told when the call ends
                self._details.update(self._plan.log().redactor.json(details))

    def _submit(self, error: BaseException | None, elapsed_ms: int) -> None:
        try:
            log = self._plan.log()
        except LookupError as failure:
            reason = "auditlog.event_unheard"
            self._plan.report(reason, f"its event is lost: {failure}", logging.ERROR)
            return
        try:
            log.submit(self._record(log, error, elapsed_ms))
        except Exception as failure:  # noqa: BLE001  # never an error of the application
            log.lose(failure)

    def _ask(self, questions: Questions, *result: Any) -> None:
        for name, question in questions:
            try:
                answer = question.answer(self._args, self._kwargs, *result)
            except Exception as error:  # noqa: BLE001  # the application's code may do anything
                self._plan.report(
                    "auditlog.question_failed", f"asking for {name} raised {describe(error)}"
                )
                continue
            if answer is not None:
                self._values[name] = as_of_now(name, answer)

    def _record(
        self, log: ApplicationEvents, error: BaseException | None, elapsed_ms: int
    ) -> LogRecord:
        plan, values = self._plan, self._values
        if error is None and plan.late:
            self._ask(plan.late, self.result)
        outcome = values.setdefault("outcome", _outcome(error))
        level = plan.level if outcome == OK else _LEVELS.get(outcome, _WARN)
        values.setdefault("level", level)
        return event_record(
            log.redactor,
            plan.event_type,
            error_type=None if error is None else type(error).__name__,
            occurrence_date=self._started_us,
            elapsed_ms=elapsed_ms,
            metadata=plan.metadata,
            details=self._details,
            **values,
        )


at_hand: ContextVar[AuditedCall | None] = ContextVar("auditlog.audited", default=None)
"""The innermost audited call in which this code runs."""


def annotate_event(
    *,
    user_id: object = None,
    target: tuple[object, object] | None = None,
    before: object = None,
    after: object = None,
    message: object = None,
    level: int | None = None,
    outcome: str | None = None,
    resource_owner: object = None,
    instance_id: object = None,
    event_sequence: int | None = None,
    **metadata: Any,
) -> None:
    """Add to the event of the audited function that runs here; a no-op outside of one.

    `annotate` speaks of the request, this of the innermost `@audited` call. What is said later
    replaces what was said before, and what the decorator says; it is read now, so it may change
    afterwards.

    Args:
        user_id: Who did it. Like the other identifiers, anything with a fitting `str`.
        target: What it was done to, as type and identifier: `("user", 42)`.
        before: What the target was, stored as JSON under `audit.before`.
        after: What it is now, under `audit.after`. Secrets in both are redacted.
        message: One sentence for people.
        level: A `LogLevel`, instead of the one concluded from the outcome.
        outcome: A `RequestOutcome`, instead of the one concluded from the exception.
        resource_owner: The organisation to whom the target belongs.
        instance_id: The tenant.
        event_sequence: The position in the application's own event stream.
        metadata: More, stored as JSON. Fields with a secret's name are redacted.
    """
    call = at_hand.get()
    if call is None:
        return
    said = {
        "user_id": user_id,
        "target": target,
        "message": message,
        "level": level,
        "outcome": outcome,
        "resource_owner": resource_owner,
        "instance_id": instance_id,
        "event_sequence": event_sequence,
    }
    values = {name: as_of_now(name, value) for name, value in said.items() if value is not None}
    details = {"audit.before": before, "audit.after": after}
    call.add(values, metadata | {key: value for key, value in details.items() if value is not None})


def as_of_now(name: str, value: object) -> object:
    """Return a value of an event as it is stored, so that it does not change any more."""
    if name == "target":
        return pair_of(value)
    return value if name in _NUMBERS else text_of(value)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return OK
    # With a number it is the operating system that refuses, and the service that has failed.
    if isinstance(error, PermissionError) and error.errno is None:
        return DENIED
    # What is none of Exception's was asked for: a cancellation, an interrupt, an exit.
    return SERVER_ERROR if isinstance(error, Exception) else CANCELLED
