"""How an RPC of an asyncio server ends: what the context says of it, and what it leaves unsaid.

Takes note of what leaves the handler, and concludes when the server is done with the RPC, or has
serialized the answer, after which nothing of Python's comes. A status is `wire` where nothing else
can have been sent; it is derived, where the server breaks off or an abort was caught.
"""

import asyncio
from typing import Any, Final
from weakref import ref

import grpc.aio

from auditlog.capture.outcomes import CANCELLED, DERIVED, NONE, OK, WIRE
from auditlog.capture.rpc import status as codes
from auditlog.capture.rpc.deadline import has_run_out
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.capture.rpc.inside_aio import (
    failed_in_server,
    has_aborted,
    has_failed_after,
    is_cancelled,
    is_stopping,
    reached_server,
)
from auditlog.capture.rpc.metadata import is_legal
from auditlog.capture.rpc.status import SUCCESS, number_of
from auditlog.capture.shared import Capture

# An int is taken for a status up to DATA_LOSS (grpcio 1.60 to 1.85): the server knows no 16.
LARGEST_INT: Final = 15


class AioEnding(GrpcExchange):
    """The half of an `AioExchange` that concludes."""

    __slots__ = (
        "_caught",
        "_context",
        "_ending",
        "_error",
        "_finished",
        "_silent",
        "_task",
        "_unseen",
    )

    _caught: bool
    """Did the handler go on after an abort?"""
    _context: Any
    """The asynchronous one, which knows the status; None until a handler runs."""
    _ending: bool
    """Was the answer given to its serializer, the last step before it is sent?"""
    _error: BaseException | None
    """What left the handler, until it is known who caught it."""
    _finished: bool
    _silent: bool
    """Did the handler end in a way to which the server says nothing?"""
    _task: "ref[asyncio.Task[Any]] | None"
    """The server's, held weakly: its context holds the exchange."""
    _unseen: bool
    """Does a handler run that could not be watched?"""

    def __init__(self, capture: Capture, details: Any) -> None:
        # Until there is something to finish: what fails in here is dropped unfinished.
        self._finished = True
        GrpcExchange.__init__(self, capture, details.method, details.invocation_metadata)
        self._caught = self._ending = self._silent = self._unseen = self._finished = False
        self._context = self._error = self._task = None

    def conclude(self, error: BaseException | None) -> None:
        """Read from the context what was sent; derive what was not."""
        self._finished = True
        context = self._context
        # A stream's context holds our deserializer, and with it the exchange.
        self.source = self._context = None
        if self._ending and not self.failed and context is not None:
            # An answer is only serialized if the status is OK.
            self.status, self.status_source, self.outcome = SUCCESS, WIRE, OK
            if not (trailing := context.trailing_metadata()):
                return
            self._note_trailing(trailing)
        elif context is None:
            self._conclude_blindly()
        elif context.done() or self._ending:
            self._conclude_sent(context)
        else:
            self._conclude_cancelled(context)
        self._error = None
        GrpcExchange.conclude(self, error)
        if self.status == codes.UNAVAILABLE and self.status_source is DERIVED:
            self.outcome = CANCELLED

    def note_failure(self, error: BaseException) -> None:
        """Keep what left the handler, until it is known who caught it."""
        self._error = error
        GrpcExchange.note_failure(self, error)

    def note_unsendable(self) -> None:
        """Foresee the error that the server is about to raise."""
        self.failed = True
        self.error_type = TypeError.__name__

    def _note(self, error: BaseException, context: Any) -> None:
        """Take note of what leaves a handler, unless it is how the server itself ends one."""
        if isinstance(error, grpc.aio.AbortError) and (context is None or has_aborted(context)):
            return
        self._note_return(context)
        if isinstance(error, asyncio.CancelledError):
            self._silent = not is_cancelled()
        else:
            self._silent = not isinstance(error, Exception)
            self.note_failure(error)

    def _note_return(self, context: Any) -> None:
        """Take note that a handler went on after an abort, whose error it must have caught."""
        self._caught = context is not None and has_aborted(context)

    def _forget_error(self) -> None:
        """Of messages that could not be read or written: the handler has caught it."""
        self.failed = False
        self.error_type = self._error = None

    def _conclude_blindly(self) -> None:
        """No handler has run that could tell what was sent."""
        self.status_source = DERIVED
        if self.broken:
            self.status, self.status_source = codes.UNKNOWN, WIRE
        elif self.failed:
            self.status = codes.UNKNOWN
        elif self._unseen:
            self.status_source = NONE
        else:
            # The client was gone before its request had come.
            self.status = codes.CANCELLED

    def _conclude_sent(self, context: Any) -> None:
        code, error = context.code(), self._error
        self.details = context.details()
        self.status_source = WIRE
        self.status = SUCCESS if code is None else number_of(code, largest_int=LARGEST_INT)
        self._note_trailing(context.trailing_metadata())
        if has_failed_after(self._task, error):
            self._conclude_unanswered()
        elif self._caught:
            # It was sent with the code of then, for which the handler may have set another.
            self.status_source = DERIVED
            if failed_in_server(error):
                self._conclude_unanswered()
        elif self.status == SUCCESS and self.failed:
            # What the server sends for an exception, if no other interceptor caught it.
            self.status = codes.UNKNOWN
            if not (self._ending or reached_server(error)):
                self.status_source = DERIVED

    def _note_trailing(self, metadata: Any) -> None:
        self.trailing_metadata = metadata
        if metadata and not is_legal(metadata):
            # The server fails to send the status with it, and the client makes up this one.
            self.status, self.status_source = codes.INTERNAL, DERIVED

    def _conclude_cancelled(self, context: Any) -> None:
        self.status_source = DERIVED
        remaining_s = context.time_remaining()
        if is_stopping(context):
            self.status = codes.UNAVAILABLE
        elif self._silent:
            self._conclude_unanswered()
        elif has_run_out(remaining_s, self.deadline_ms):
            self.status = codes.DEADLINE_EXCEEDED
        else:
            self.status = codes.CANCELLED

    def _conclude_unanswered(self) -> None:
        """The server has broken off without a word, and lets the client wait."""
        self.status_source = DERIVED
        unlimited = self.deadline_ms is None
        self.status = codes.CANCELLED if unlimited else codes.DEADLINE_EXCEEDED
