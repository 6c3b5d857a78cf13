"""An RPC of the threaded server: told by what stands in for its handler, and by how it ends.

It is over when the handler has ended *and* the server is done with its client, which comes first
when a client leaves: the handler then goes on in its thread, and what it still says is waited for
(`finishing`). The status is read when the server is done: from the server's own state it is the one
that was sent, without it, or when nothing was sent, it is derived.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from auditlog.capture.outcomes import CANCELLED, DERIVED, INCOMPLETE, NONE, WIRE
from auditlog.capture.policy import Decision
from auditlog.capture.rpc import status as codes
from auditlog.capture.rpc import unwrapped
from auditlog.capture.rpc.deadline import has_run_out, is_deadline
from auditlog.capture.rpc.exchange import SERVER_STREAM, UNARY, GrpcExchange
from auditlog.capture.rpc.finishing import FINISHING, Finishing
from auditlog.capture.rpc.metadata import is_legal, raw_pairs
from auditlog.capture.rpc.status import SUCCESS, number_of
from auditlog.capture.shared import Capture

_ONE_REQUEST = frozenset({UNARY, SERVER_STREAM})


class ThreadedExchange(GrpcExchange):
    """One RPC of a threaded server."""

    __slots__ = (
        "_context",
        "_default",
        "_ended",
        "_is_certain",
        "_over",
        "_pairs",
        "_unclaimed",
        "_unread",
        "resolving",
        "unserved",
    )

    finishing: ClassVar[Finishing] = FINISHING
    ends_with_none: ClassVar[bool] = False
    """Is it told of a stream that ends with None before the server is?"""
    may_wait: ClassVar[bool] = False
    """May its end take long, so that the server's only thread must not be asked for it?"""
    resolving: bool
    """Is the method's handler being looked for?"""
    _pairs: Iterable[tuple[bytes, bytes]]
    unserved: int | None
    """The status to derive if no handler of ours runs; None: it cannot be known."""

    def __init__(self, capture: Capture, details: Any) -> None:
        self._unclaimed: list[None] = []
        GrpcExchange.__init__(self, capture, details.method, None)
        self._unread = details.invocation_metadata
        self.resolving = self._is_certain = True
        # Of a request that never comes, the client is gone by then.
        self.unserved = codes.CANCELLED
        self._default = SUCCESS
        self._context: Any = None
        self._ended = self._over = False
        # Whoever takes it may finish: to take it is one step of the interpreter.
        self._unclaimed.append(None)
        self.finishing.begin()

    def __del__(self) -> None:
        """Record an RPC whose handler was dropped without having run."""
        if self._unclaimed:
            self._finish_once()

    @property
    def raw_headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The metadata; taken apart when first asked for, which is mostly after the answer."""
        if self._unread is not None:
            self._pairs = raw_pairs(self._unread)
            self._unread = None
        return self._pairs

    @raw_headers.setter
    def raw_headers(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._unread, self._pairs = None, pairs

    # Told by what stands in for the handler.

    def start(self, context: Any) -> None:
        """Begin to watch, in the handler's thread."""
        self._context = context
        self.begin(context)
        if not is_deadline(self.deadline_ms):
            self.deadline_ms = None
        try:
            if not context.add_callback(self._done):
                self._done()
        except Exception as failure:  # noqa: BLE001  # another interceptor's context, perhaps
            self.note_unreadable(failure)

    def may_be_unwatched(self) -> bool:
        """Tell whether a handler may run that cannot be watched; told before it does."""
        self.unserved = None
        return True

    def decline(self, context: Any) -> None:
        """Refuse an RPC whose handler must not run; raises the exception of `abort`."""
        raise NotImplementedError

    def raised(self, error: BaseException) -> None:
        """Take note of what leaves a handler; to be called by what the server calls."""
        self._is_certain = unwrapped.is_called_by_server()
        self._try(self._note_raised, error)

    def end(self) -> None:
        """Take note that the handler has ended; the first time counts."""
        if self._ended:
            return
        if self._unclaimed:
            self.release()
        self._ended = True
        if self.broken:
            # The status went out when the message came. One in five of such RPCs the server then
            # never lets go, for it sends a second one (grpcio 1.85, without us, 2026-11-25).
            self._done()
            return
        if not self._over:
            self.finishing.wait(self)
        # Asked again: the server may have been done meanwhile, and have seen no end.
        if self._over:
            self._finish_once()

    def deserialize(self, data: bytes) -> Any:
        """Stand in for the handler's deserializer; None is no message either."""
        message = None
        try:
            message = GrpcExchange.deserialize(self, data)
        finally:
            if message is None:
                self.broken = True
                if self.kind in _ONE_REQUEST:
                    # No handler will run. Not left to `__del__`: whoever keeps the exception for
                    # its log line keeps what stands here, too.
                    self._finish_once()
        return message

    def serialize(self, message: Any) -> Any:
        """Stand in for the handler's serializer: what it cannot do is an internal error."""
        self._default = codes.INTERNAL
        data = None
        try:
            data = GrpcExchange.serialize(self, message)
        finally:
            if data is None:
                # The server asks for no more. Of the iterator it lets go, but see above.
                self.end()
            else:
                self._default = SUCCESS
        return data

    # Told by the server.

    def refuse(self, error: BaseException) -> None:
        """Record that an interceptor behind this one raised, so that no handler will run."""
        self.resolving = False
        self.unserved = codes.UNKNOWN
        self.note_error(error)
        self._finish_once()

    def _done(self) -> None:
        """The server is done with the client; it says so on its only thread."""
        context = self._context
        if context is None or not self._unclaimed:
            return  # it was not waited for
        self.ended_ns = time.perf_counter_ns()
        client = getattr(getattr(context, "_state", None), "client", unwrapped.CANCELLED)
        if not self._ended or client == unwrapped.CANCELLED:
            self._try(self._read_status, context)
        # Else nothing changes any more, and it is read when the row is put together.
        self._over = True
        if not self._ended:
            self.finishing.wait(self)
        # Asked again: the handler may have ended meanwhile.
        if self._ended:
            self._finish_once()

    def give_up_waiting(self, since_ns: int) -> None:
        """Finish without the end that did not come."""
        if not self.ended_ns:
            self.ended_ns = since_ns
        # The handler may be at work, and say more while this is looked through.
        self.metadata = self.metadata.copy()
        self._finish_once()

    def _finish_once(self) -> None:
        try:
            self._unclaimed.pop()
        except IndexError:
            return
        self.finishing.end(self)

    def finish(self, error: BaseException | None) -> None:
        """Submit the row, and let go of the RPC."""
        GrpcExchange.finish(self, error)
        # The context leads to the RPC's context variables, and these lead here.
        self._context = self.source = None

    def _try(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call what asks a context, which may be another interceptor's."""
        try:
            function(*arguments)
        except Exception as failure:  # noqa: BLE001  # never an error of the RPC
            self.note_unreadable(failure)

    def _note_raised(self, error: BaseException) -> None:
        if not self._is_servers_own(error):
            self._default = codes.UNKNOWN
            self.note_error(error)

    # How it ended.

    def conclude(self, error: BaseException | None) -> None:
        """Derive a status where the server has not told of one."""
        if self.status_source is NONE:
            self._try(self._read_status if self._over else self._read_unended, self._context)
        GrpcExchange.conclude(self, error)
        if self.status == codes.UNAVAILABLE and self.status_source is DERIVED:
            self.outcome = CANCELLED
        elif self.status is None and self._ended:
            self.outcome = INCOMPLETE

    def describe(self, metadata: dict[str, Any], decision: Decision) -> None:
        """Add that the handler was not waited for any longer."""
        GrpcExchange.describe(self, metadata, decision)
        if self._context is not None and not self._ended:
            metadata["audit.still_running"] = True

    def _read_status(self, context: Any) -> None:
        """Find out, when the server is done, what it has sent."""
        state = unwrapped.state_of(context)
        cut_off = self._is_cut_off(state)
        self._is_certain = self._is_certain and state is not None and not cut_off
        if cut_off:
            self.status_source = DERIVED
            self.status = self._status_of_cut(context, state)
        else:
            self._read_sent(context, state)

    def _is_cut_off(self, state: Any) -> bool:
        """Tell, when the server is done, whether it has sent no status."""
        if state is None:
            return not (self._ended or self.broken)
        return state.client == unwrapped.CANCELLED or not state.statused

    def _status_of_cut(self, context: Any, state: Any) -> int:
        if state is not None and state.statused and not is_legal(state.trailing_metadata or ()):
            # The server fails to send the status with it, and the client makes up this one.
            return codes.INTERNAL
        if unwrapped.is_stopping():
            return codes.UNAVAILABLE
        if has_run_out(context.time_remaining(), self.deadline_ms):
            return codes.DEADLINE_EXCEEDED
        return codes.CANCELLED

    def _read_sent(self, context: Any, state: Any) -> None:
        """Read what was set, and what the server sends where nothing was."""
        if state is not None:
            code, self.details = state.code, state.details
            self.trailing_metadata = state.trailing_metadata
        else:
            code, self.details = context.code(), context.details()
            self.trailing_metadata = context.trailing_metadata()
        if code is not None:
            # The server takes members of the enumeration, and knows no number.
            self.status = number_of(code, largest_int=None)
            certain = state is not None
        else:
            self.status = codes.INTERNAL if self.broken else self._default
            certain = self._is_certain
        self.status_source = WIRE if certain else DERIVED

    def _read_unended(self, context: Any) -> None:
        """Derive what there is to derive of an RPC that was not waited for, or never served."""
        if context is None:
            self.status = codes.INTERNAL if self.broken else self.unserved
            self.status_source = NONE if self.status is None else DERIVED
        elif (state := unwrapped.state_of(context)) is None or state.statused:
            self._read_sent(context, state)
            self.status_source = DERIVED

    def _is_servers_own(self, error: BaseException) -> bool:
        """Tell what the server raises in a handler to end it: for `abort`, or for a lost client."""
        context = self._context
        if type(error) is Exception and not error.args:
            aborted = unwrapped.was_aborted(context)
            return context.code() is not None if aborted is None else aborted
        if type(error).__name__ != "RpcError":
            return isinstance(error, GeneratorExit)
        return not error.args and not context.is_active()
