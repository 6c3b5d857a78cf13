"""What the threaded server runs in the handlers' place: one stand-in for each RPC, by kind.

Requests, responses and exceptions pass as the same objects. A stand-in has all attributes of what
it stands for, which other interceptors may look at. One that is dropped by the server's only
thread, where it was made, and never called, was refused: there were too many RPCs at once.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import get_ident
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import grpc

from auditlog.capture.context import current
from auditlog.capture.rpc.threaded import ThreadedExchange

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# The class that grpcio's own functions make: other interceptors rely on its being a named tuple.
_Handler: Final[Any] = type(grpc.unary_unary_rpc_method_handler(lambda request, _: request))
_CALLED = 0
_RESOURCE_EXHAUSTED = 8


def stand_in(exchange: ThreadedExchange, handler: Any) -> Any:
    """Return a handler of the same kind that does the same, and tells the exchange.

    Args:
        exchange: The RPC.
        handler: The method's; None for one that is not there: what is returned then answers as
            the server would, for only handlers are told who asks.
    """
    if handler is None:
        rejecting = _Rejecting(exchange, None)
        return _Handler(True, True, None, None, None, None, None, rejecting)
    requests, responses = handler.request_streaming, handler.response_streaming
    exchange.serves(requests, responses, handler.request_deserializer, handler.response_serializer)
    places: list[Any] = [None, None, None, None]
    if responses:
        behaviour = handler.stream_stream if requests else handler.unary_stream
        calls_back = getattr(behaviour, "experimental_non_blocking", False)
        kind: type[_StandIn] = _CallingBack if calls_back else _Streaming
    else:
        behaviour = handler.stream_unary if requests else handler.unary_unary
        kind = _Answering
    places[2 * bool(requests) + bool(responses)] = kind(exchange, behaviour)
    return _Handler(requests, responses, exchange.deserialize, exchange.serialize, *places)


def unwatched(exchange: ThreadedExchange, handler: Any) -> Any:
    """Return what serves in place of a handler that cannot be watched: itself, if it may."""
    if exchange.may_be_unwatched():
        return handler
    return _Handler(True, True, None, None, None, None, None, _Declining(exchange, None))


class _StandIn:
    # The server asks each for these, which is cheap where they are found.
    experimental_thread_pool: Any = None
    experimental_non_blocking = False

    def __init__(self, exchange: ThreadedExchange, behaviour: Any) -> None:
        self._exchange = exchange
        self._behaviour = behaviour
        self._made_by = get_ident()
        pool = getattr(behaviour, "experimental_thread_pool", None)
        if pool is not None:
            self.experimental_thread_pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behaviour, name)

    def __del__(self) -> None:
        if self._made_by == get_ident():
            self._exchange.unserved = _RESOURCE_EXHAUSTED

    def _call(self, *arguments: Any) -> Any:
        """Call the handler, wherever an interceptor in front may have taken it."""
        exchange = self._exchange
        outer = current.get()
        if outer is exchange:
            return self._behaviour(*arguments)
        current.set(exchange)
        try:
            return self._behaviour(*arguments)
        finally:
            # Not by token, and only what is ours.
            if current.get() is exchange:
                current.set(outer)


class _Answering(_StandIn):
    """Of a handler that returns its answer."""

    def __call__(self, request: Any, context: Any) -> Any:
        self._made_by = _CALLED
        exchange = self._exchange
        try:
            exchange.start(context)
            return self._call(request, context)
        except BaseException as error:
            exchange.raised(error)
            raise
        finally:
            exchange.end()


class _Streaming(_StandIn):
    """Of a handler that returns an iterator, most often as a generator."""

    def __call__(self, request: Any, context: Any) -> Any:
        self._made_by = _CALLED
        exchange = self._exchange
        try:
            exchange.start(context)
            kind = _ResponsesToNone if exchange.ends_with_none else _Responses
            return kind(exchange, self._call(request, context))
        except BaseException as error:
            exchange.raised(error)
            exchange.end()
            raise


class _CallingBack(_StandIn):
    """Of a handler that is given a function to send with, an experiment of grpcio's."""

    experimental_non_blocking = True

    def __call__(self, request: Any, context: Any, send: Callable[[Any], None]) -> Any:
        self._made_by = _CALLED
        exchange = self._exchange

        def send_and_tell(response: Any) -> None:
            if response is None:
                exchange.end()
            send(response)

        try:
            exchange.start(context)
            return self._call(request, context, send_and_tell)
        except BaseException as error:
            exchange.raised(error)
            exchange.end()
            raise


class _Rejecting(_StandIn):
    """Of a method that is not there."""

    def __init__(self, exchange: ThreadedExchange, behaviour: Any) -> None:
        _StandIn.__init__(self, exchange, behaviour)
        if not (exchange.capture.asks or exchange.may_wait):
            self.experimental_thread_pool = _AT_ONCE

    def __call__(self, _: Any, context: Any) -> NoReturn:
        self._made_by = _CALLED
        try:
            self._exchange.start(context)
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        finally:
            self._exchange.end()
        raise RuntimeError("abort returned: the context is not grpcio's")


class _Declining(_StandIn):
    """Of a method that must not run."""

    def __call__(self, _: Any, context: Any) -> None:
        self._made_by = _CALLED
        try:
            self._exchange.decline(context)
        except BaseException as error:
            self._exchange.raised(error)
            raise
        finally:
            self._exchange.end()


class _Responses:
    """The handler's own iterator, watched."""

    __slots__ = ("_exchange", "_responses")

    def __init__(self, exchange: ThreadedExchange, responses: Any) -> None:
        self._exchange = exchange
        self._responses = responses

    def __iter__(self) -> "_Responses":
        return self

    def __next__(self) -> Any:
        try:
            return next(self._responses)
        except StopIteration:
            self._exchange.end()
            raise
        except BaseException as error:
            self._exchange.raised(error)
            self._exchange.end()
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._responses, name)

    def __del__(self) -> None:
        # First: that is where a generator of a lost client ends, and what it says then counts.
        self._responses = None
        self._exchange.end()


class _ResponsesToNone(_Responses):
    """Which the server takes for their end."""

    __slots__ = ()

    def __next__(self) -> Any:
        response = _Responses.__next__(self)
        if response is None:
            self._exchange.end()
        return response


class _AtOnce(ThreadPoolExecutor):
    """Rejects where the server itself would: at once, not when a thread of the pool is free."""

    def submit(
        self,
        function: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        future: Future[Result] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  # whoever waits gets it
            future.set_exception(error)
        return future


_AT_ONCE: Final = _AtOnce(max_workers=1)
