"""RPCs of the threaded server whose row is kept before their answer.

An answer's row is made by the serializer, which the server calls in the handler's thread with its
last step before it sends; every other one when the handler has ended, in the same thread. There it
may be waited for. Who makes the row is whoever takes the one token: the handler's thread, or the
server's only one, where a client has left and the handler never ends, or has returned what nobody
serializes. The server's thread never waits.
"""

import time
from threading import get_ident
from typing import Any, ClassVar, Final, NoReturn

import grpc

from auditlog.capture.outcomes import DERIVED, NONE
from auditlog.capture.policy import Decision
from auditlog.capture.rpc import status as codes
from auditlog.capture.rpc import unwrapped
from auditlog.capture.rpc.durable import (
    ONE_ANSWER,
    WITHHELD,
    DurableExchange,
    Refusal,
    not_carried_out,
)
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.capture.rpc.finishing import AT_ONCE, ELSEWHERE, Finishing
from auditlog.capture.rpc.metadata import is_legal
from auditlog.capture.rpc.status import outcome_of
from auditlog.capture.rpc.threaded import ThreadedExchange
from auditlog.capture.shared import Capture
from auditlog.settings import Settings
from auditlog.ticket import Ticket


class SpooledThreaded(DurableExchange, ThreadedExchange):
    """One whose row is handed over before the client can have the whole answer."""

    __slots__ = (
        "_cut",
        "_foresees",
        "_has_raised",
        "_has_returned",
        "_is_unsendable",
        "_rowless",
        "_serving",
    )

    finishing: ClassVar[Finishing] = AT_ONCE
    ends_with_none: ClassVar[bool] = True
    blocks: ClassVar[bool] = False
    """May handing a row over take long?"""
    _cut: int | None
    """The status to derive if the client was gone before there was one."""
    _foresees: bool
    """Is the status written down that the server is about to send?"""
    _has_raised: type[BaseException] | None
    """What has left the handler."""
    _has_returned: bool
    """Has the handler ended with an answer that is to be serialized?"""
    _rowless: list[None]
    """Whoever takes what is in it makes the row: to take it is one step of the interpreter."""
    _serving: int
    """The server's only thread."""

    def __init__(self, capture: Capture, details: Any) -> None:
        self._cut = self._has_raised = None
        self._foresees = self._has_returned = self._is_unsendable = False
        self._rowless = [None]
        self._serving = get_ident()
        ThreadedExchange.__init__(self, capture, details)

    # Told by what stands in for the handler.

    def raised(self, error: BaseException) -> None:
        """Take note of what leaves a handler; to be called by what the server calls."""
        # Not the error itself, whose trace leads here.
        self._has_raised = type(error)
        # Not left to the other class: it counts the frames to whoever calls this.
        self._is_certain = unwrapped.is_called_by_server()
        self._try(self._note_raised, error)

    def end(self) -> None:
        """Hand the row over, if the server is about to send a status; the first time counts."""
        if self._ended:
            return
        if self.kind in ONE_ANSWER and not (self._has_raised or self._has_returned):
            # The serializer is called next, in this very thread.
            self._has_returned = True
            return
        try:
            if self._has_answer() and self._claim():
                self.release()
                self._keep()
        finally:
            ThreadedExchange.end(self)

    def may_be_unwatched(self) -> bool:
        """Let it run, once there is a row; how it ends is not known."""
        ThreadedExchange.may_be_unwatched(self)
        self._finish_once()
        return True

    def serialize(self, message: Any) -> Any:
        """Stand in for the handler's serializer; no answer where none may be sent."""
        data = ThreadedExchange.serialize(self, message)
        if self.kind not in ONE_ANSWER or data is None:
            return data
        self.end()
        return None if self.refused else data

    def note_unsendable(self) -> None:
        """Foresee that the server breaks off."""
        self._is_unsendable = True

    def deserialize(self, data: bytes) -> Any:
        """Stand in for the handler's deserializer; if that fails, the server answers at once."""
        try:
            return ThreadedExchange.deserialize(self, data)
        finally:
            if self.broken and self._context is not None and not self.blocks and self._claim():
                # The handler may be at work, and say more while this is looked through.
                self.metadata = self.metadata.copy()
                self._hand_over_first()

    # Told by the server, and by whoever has waited long enough.

    def _done(self) -> None:
        context = self._context
        if context is None or not self._unclaimed:
            return
        if self._rowless:
            self.ended_ns = time.perf_counter_ns()
        self._try(self._note_cut, context)
        self._over = True
        if self._has_returned and not self._ended and self._claim():
            # The client has left, or another interceptor has raised, and nobody has serialized it.
            self._default, self._is_certain = codes.UNKNOWN, False
            ThreadedExchange.end(self)
            return
        if not self._ended:
            self.finishing.wait(self)
        # Asked again: the handler may have ended meanwhile.
        if self._ended:
            self._finish_once()

    def give_up_waiting(self, since_ns: int) -> None:
        """Finish without the end that did not come, unless a row is being made just now."""
        if self._ended or self._claim():
            ThreadedExchange.give_up_waiting(self, since_ns)

    # What becomes of it.

    def finish(self, error: BaseException | None) -> None:
        """Submit the row, or the one of what came after it; in the end, let go of the RPC."""
        if self._foresees:
            GrpcExchange.finish(self, error)
        else:
            self._claim()
            ThreadedExchange.finish(self, error)

    def conclude(self, error: BaseException | None) -> None:
        """Write down what the server is about to send; read what it has sent, when it is over."""
        context = self._context
        if context is not None and (self._foresees or self._over):
            if self._foresees:
                self._try(self._note_loss, context)
            self.status_source = NONE
            if self._cut is None:
                self._try(self._read_foreseen, context)
            else:
                self.status, self.status_source = self._cut, DERIVED
        ThreadedExchange.conclude(self, error)
        if self.refused and self.status == codes.UNAVAILABLE:
            self.outcome = outcome_of(self.status)

    def describe(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add how it went; a handler that is waited for just now does not run on."""
        kind = GrpcExchange if self._foresees else ThreadedExchange
        kind.describe(self, metadata, decision)

    def is_cut_short(self) -> bool:
        """Tell, of an RPC that is over, whether its client was gone before the status was sent."""
        return self._cut is not None

    def _keep(self) -> None:
        """Hand the row over; let the client have something else if that is not enough."""
        self._hand_over_first()

    def _hand_over_first(self) -> None:
        self._foresees = True
        self.finish_before_end()
        self._foresees = False

    def _has_answer(self) -> bool:
        """Tell whether the server is about to send something, so that there is no time to lose."""
        if self.blocks and get_ident() == self._serving:
            # It drops what was left of a stream, whose client has gone.
            return False
        # For anything but an `Exception` the server says nothing, and lets the client wait, as it
        # does when it comes upon an answer that it cannot send.
        return not self._is_unsendable and (
            self._has_raised is None or issubclass(self._has_raised, Exception)
        )

    def late_error(self) -> BaseException | None:
        """Return nothing: when a handler ends, its row is yet to be made."""
        return None

    def _claim(self) -> bool:
        try:
            self._rowless.pop()
        except IndexError:
            return False
        return True

    def _may_wait(self) -> bool:
        return not self._over and get_ident() != self._serving

    def _is_durable(self, ticket: Ticket) -> bool:
        try:
            return self.recorder.durable_in_thread(ticket)
        except Exception as failure:  # noqa: BLE001  # a log of the application's own
            self.note_undecided(failure)
            return False

    def _note_cut(self, context: Any) -> None:
        state = unwrapped.state_of(context)
        if self._is_cut_off(state):
            self._cut = self._status_of_cut(context, state)

    def _note_loss(self, context: Any) -> None:
        """Notice a client that has left, of which the server has not told yet."""
        if self._cut is None and unwrapped.has_lost_client(context):
            self._cut = self._status_of_cut(context, unwrapped.state_of(context))

    def _read_foreseen(self, context: Any) -> None:
        state = unwrapped.state_of(context)
        self._is_certain = self._is_certain and state is not None
        self._read_sent(context, state)
        if self.trailing_metadata and not is_legal(self.trailing_metadata):
            # The server fails to send the status with it, and the client makes up this one.
            self.status, self.status_source = codes.INTERNAL, DERIVED


class SyncedThreaded(SpooledThreaded):
    """One whose row is on the disk by then, or has had its time."""

    __slots__ = ()
    may_wait = True

    def _keep(self) -> None:
        self.ticket = ticket = Ticket()
        self._hand_over_first()
        if self._may_wait():
            self._is_durable(ticket)


class CommittedThreaded(SpooledThreaded):
    """One that nobody serves and nobody answers before its rows are committed."""

    __slots__ = ()
    may_wait = True

    def announce(self) -> None:
        """Leave it to `start`."""

    def start(self, context: Any) -> None:
        """Begin to watch, and wait until it is certain that the RPC has a row.

        Raises:
            Exception: That of `abort`; the handler must not run.
        """
        ThreadedExchange.start(self, context)
        if self.refused:
            self._decline(context)
        if self.exchange_id is not None:
            return  # an interceptor in front tries again
        ticket = self.announce_durably()
        if ticket is not None and not self._is_durable(ticket):
            self._decline(context)
        if ticket is not None and self._over:
            # As the server has it: no handler runs for a client that has left.
            context.abort(grpc.StatusCode.CANCELLED, "")

    def may_be_unwatched(self) -> bool:
        """Tell whether it is exempt."""
        return self.is_exempt() and SpooledThreaded.may_be_unwatched(self)

    def decline(self, context: Any) -> None:
        """Refuse an RPC whose handler must not run; raises the exception of `abort`."""
        ThreadedExchange.start(self, context)
        self._decline(context)

    def _decline(self, context: Any) -> None:
        self.note_refusal()
        _refuse(context, not_carried_out(self.recorder.settings.commit_timeout_s))

    def _keep(self) -> None:
        self._hand_over_first()
        ticket = self.ticket
        if ticket is None or not self._may_wait() or self._is_durable(ticket):
            return
        self.note_refusal()
        # What it raises, with another interceptor's context, ends the RPC as well.
        self._withhold(self._context)

    def _withhold(self, context: Any) -> None:
        context.set_code(WITHHELD.code)
        context.set_details(WITHHELD.details)
        context.set_trailing_metadata(WITHHELD.trailing_metadata)


class _Blocking:
    """Where a row may have to wait for room, which must not keep the server's only thread."""

    __slots__ = ()
    finishing: ClassVar[Finishing] = ELSEWHERE
    blocks: ClassVar[bool] = True
    may_wait: ClassVar[bool] = True


class BlockingThreaded(_Blocking, SpooledThreaded):
    """One whose handler waits for room."""

    __slots__ = ()


class BlockingSyncedThreaded(_Blocking, SyncedThreaded):
    """Likewise, with its row on the disk."""

    __slots__ = ()


class BlockingCommittedThreaded(_Blocking, CommittedThreaded):
    """Likewise, with its rows committed."""

    __slots__ = ()


_CLASSES: Final = {
    "memory": (ThreadedExchange, BlockingThreaded),
    "spool": (SpooledThreaded, BlockingThreaded),
    "synced": (SyncedThreaded, BlockingSyncedThreaded),
    "commit": (CommittedThreaded, BlockingCommittedThreaded),
}


def refusing(settings: Settings) -> Any:
    """Return a handler for an RPC of which nothing can be told, where none is served without."""
    refusal = not_carried_out(settings.commit_timeout_s)
    return grpc.stream_unary_rpc_method_handler(lambda _, context: _refuse(context, refusal))


def _refuse(context: Any, refusal: Refusal) -> NoReturn:
    context.set_trailing_metadata(refusal.trailing_metadata)
    context.abort(refusal.code, refusal.details)
    raise RuntimeError("abort returned: the context is not grpcio's")


def exchange_class(settings: Settings) -> type[ThreadedExchange]:
    """Return what an RPC is to be, by `durability`, and by what a full queue means."""
    is_synced = settings.durability == "spool" and settings.spool_fsync == "always"
    name = "synced" if is_synced else settings.durability
    return _CLASSES[name][settings.on_overflow == "block"]
