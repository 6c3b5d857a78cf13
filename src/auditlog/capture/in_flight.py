"""A request in flight, whatever its protocol: what is known of it, and whom to ask for the rest.

A capture makes one per request and feeds it what passes by. It holds everything of its request and
shares nothing with another. How it becomes a row is told in `exchange`.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from auditlog.capture.context import Annotations
from auditlog.capture.outcomes import NONE, UNKNOWN
from auditlog.capture.policy import Decision, Level
from auditlog.capture.recorder import Recorder
from auditlog.capture.shared import Capture, Identify
from auditlog.capture.trace import correlation, raw_correlation
from auditlog.records import LogRecord
from auditlog.reporting import describe
from auditlog.ticket import Ticket

Identity: TypeAlias = tuple[str | None, str | None, str | None]


class Operations(Protocol):
    """What a request turned out to carry, such as the operations of a GraphQL batch."""

    def submit(self) -> bool:
        """Submit a row for each of them; tell whether these stand for the request's own."""


class InFlight(Annotations):
    """The protocol's part fills these in; an exchange reads them."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "capture",
        "ended_ns",
        "error_type",
        "exchange_id",
        "method",
        "operations",
        "outcome",
        "path",
        "raw_headers",
        "refused",
        "said_before",
        "source",
        "started_ns",
        "started_us",
        "status",
        "status_source",
        "ticket",
        "waiting",
    )

    protocol = 0
    route_key: str | None = None
    """The metadata key of the route, where it is not told otherwise."""
    disconnected = False
    """Is the client known to have left?"""
    status: int | None
    error_type: str | None
    operations: Operations | None
    """None but for a request in which something is carried that has rows of its own."""
    exchange_id: str | None
    """The `log_id` of the received row, once there is one: the request owes a complete row."""
    ticket: Ticket | None
    """Whoever holds it waits until the rows are durable; None where nobody does."""
    refused: bool
    """Was the client told, or made to see, that it gets no answer for want of an audit row?"""
    said_before: tuple[Any, ...] | None
    """What had been said when the request had its row, if that was before the end of its answer."""
    waiting: "tuple[WhenOver, ...] | None"
    """Who is to be told when the request is over; None: it is."""

    def __init__(
        self,
        capture: Capture,
        source: Any,
        method: str,
        path: str,
        raw_headers: Iterable[tuple[bytes, bytes]],
    ) -> None:
        # What handlers may say. Made for every request: one store after another from one None.
        self.user_id = self.resource_owner = self.instance_id = None
        self.aggregate_type = self.aggregate_id = self.event_type = self.event_sequence = None
        self.message = self.level = None
        self.metadata = {}
        self.skipped = self.refused = False
        self.capture = capture
        self.source = source
        self.method = method
        self.path = path
        self.raw_headers = raw_headers
        # The wall clock says when, the monotonic one how long: the wall may be set meanwhile.
        self.started_us = time.time_ns() // 1000
        self.started_ns = time.perf_counter_ns()
        self.ended_ns = self.bytes_in = self.bytes_out = 0
        self.status = self.error_type = self.log_id = self.exchange_id = self.operations = None
        self.ticket = self.said_before = None
        self.waiting = ()
        self.status_source = NONE
        self.outcome = UNKNOWN

    # What a protocol tells.

    def note_error(self, error: BaseException) -> None:
        """Keep the type of what left the application."""
        self.error_type = type(error).__name__

    def conclude(self, error: BaseException | None) -> None:
        """Fix status, its source and the outcome."""
        raise NotImplementedError

    def route(self) -> str | None:
        """The template, or full method name, that served the request."""
        raise NotImplementedError

    def target(self) -> str:
        """The request's target, redacted, for `request_url`."""
        raise NotImplementedError

    def knows_user(self) -> bool:
        """Tell whether the source names a user whom no handler has to name."""
        raise NotImplementedError

    def peer(self) -> str | None:
        """Return the address of whoever connected; None where it has none."""
        raise NotImplementedError

    def describe(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add how this request went on the wire."""
        raise NotImplementedError

    # What holds for all of them.

    def facts(self, headers: dict[str, list[str]] | None) -> dict[str, Any]:
        """Begin the metadata: outcome, addresses and correlation.

        Args:
            headers: Those that are stored; None when none are.
        """
        capture = self.capture
        metadata: dict[str, Any] = {
            "audit.outcome": self.outcome,
            "audit.status_source": self.status_source,
        }
        peer = self.peer()
        address = capture.proxies.resolve(peer, self.raw_headers)
        if address:
            metadata["client.address"] = address
        if peer:
            metadata["network.peer.address"] = peer
        if headers is None or not capture.keeps_correlation:
            trace_id, span_id, request_id = raw_correlation(self.raw_headers)
        elif "traceparent" in headers or "x-request-id" in headers:
            # At half the cost (2026-11-24).
            trace_id, span_id, request_id = correlation(headers)
        else:
            return metadata
        if trace_id is not None:
            metadata["trace_id"] = trace_id
            metadata["span_id"] = span_id
        if request_id is not None:
            metadata["audit.request_id"] = request_id
        return metadata

    def hand_over(self, record: LogRecord) -> None:
        """Submit one row of this request."""
        if self.ticket is None:
            self.capture.recorder.submit(record)
        else:
            self.capture.recorder.submit(record, self.ticket)

    @property
    def recorder(self) -> Recorder:
        """The log to which the request's row goes."""
        return self.capture.recorder

    def client_address(self) -> str | None:
        """Return the client's address, as far as trusted proxies vouch for it."""
        return self.capture.proxies.resolve(self.peer(), self.raw_headers)

    def is_exempt(self) -> bool:
        """Tell whether it is served without waiting for anything, as health checks are."""
        try:
            level, _ = self.capture.policy.at_beginning(self.protocol, self.method, self.path)
        except Exception:  # noqa: BLE001  # a policy of the application's own
            return False
        return level is Level.NONE

    def identity(self) -> Identity:
        """Return user, organisation and tenant; asks the callables for what no handler has said."""
        capture = self.capture
        user_id, resource_owner, instance_id = self.user_id, self.resource_owner, self.instance_id
        if user_id is None and capture.user_id is not None:
            user_id = self._ask(capture.user_id)
        if resource_owner is None and capture.resource_owner is not None:
            resource_owner = self._ask(capture.resource_owner)
        if instance_id is None and capture.instance_id is not None:
            instance_id = self._ask(capture.instance_id)
        return user_id, resource_owner, instance_id

    def trace(self) -> tuple[str | None, str | None]:
        """Return trace id and parent span id."""
        return raw_correlation(self.raw_headers)[:2]

    def when_over(self, tell: "WhenOver") -> None:
        """Have it called with this request, once, when that is over; at once if it is.

        By then outcome, status, sizes and duration are fixed, the row is submitted, and what a
        background task of the request's did is done. It is called wherever the request happens to
        end, be it a server's only thread or a collection, so it must not wait; what it raises is
        reported. May be called from any thread.
        """
        # No call in these lines: the interpreter goes to no other thread in between.
        if self.waiting is not None:
            self.waiting = (*self.waiting, tell)
        else:
            self.tell((tell,))

    def tell(self, waiting: "tuple[WhenOver, ...]") -> None:
        """Call those who wait; never raises."""
        for tell in waiting:
            try:
                tell(self)
            except Exception as error:  # noqa: BLE001  # never an error of the request
                # A log of the application's own may fail here, too.
                with suppress(Exception):
                    self.recorder.reporter.report(
                        "auditlog.callback_failed",
                        f"what was to follow a request raised {describe(error)}",
                    )

    def _ask(self, identify: Identify) -> str | None:
        try:
            answer = identify(self.source)
            return None if answer is None else str(answer)
        except Exception as error:  # noqa: BLE001  # the application's code may do anything
            # Not its repr: that of a partial shows the arguments.
            name = getattr(identify, "__qualname__", type(identify).__name__)
            self.capture.recorder.reporter.report(
                "auditlog.identify_failed", f"{name} raised {describe(error)}"
            )
            return None


WhenOver: TypeAlias = Callable[[InFlight], None]
"""Told of a request that is over."""
