"""What an asyncio server does not tell: found in code flags, in traces, and by the collector.

Each function looks at objects of grpcio that are its own affair, answers one question, changes
nothing, and falls back to the answer that claims least. Measured with grpcio 1.60 and 1.85.
"""

import asyncio
import gc
import inspect
from types import FunctionType, MethodType, TracebackType
from typing import Any
from weakref import ref

import grpc
import grpc.aio

from auditlog.capture.rpc.metadata import is_legal

COROUTINE, GENERATOR, PLAIN = "coroutine", "generator", "plain"
# A context inside the attributes of contexts.
_MAX_DEPTH = 5


def flavour(behaviour: Any) -> str:
    """Tell, as the server does, how a behaviour is to be run."""
    function = behaviour.__func__ if type(behaviour) is MethodType else behaviour
    if type(function) is FunctionType:
        flags = function.__code__.co_flags
        if flags & inspect.CO_COROUTINE:
            return COROUTINE
        if flags & inspect.CO_ASYNC_GENERATOR:
            return GENERATOR
    if inspect.iscoroutinefunction(behaviour):
        return COROUTINE
    return GENERATOR if inspect.isasyncgenfunction(behaviour) else PLAIN


def gave_a_handler(source: Any) -> bool:
    """Tell whether it is a task that found a handler: the server's returns nothing."""
    if not isinstance(source, asyncio.Future) or source.cancelled() or source.exception():
        return False
    return source.result() is not None


def asynchronous(context: Any) -> Any:
    """Return the context that knows the status.

    That of a plain function does not, and has the other one inside, out of Python's sight but for
    the garbage collector's; and an interceptor in front may have put its own around either.
    """
    contexts = [context]
    for _ in range(_MAX_DEPTH):
        for each in contexts:
            if hasattr(each, "code"):
                return each
        contexts = _contexts_in(gc.get_referents(*contexts))
    return None


def is_cancelled() -> bool:
    """Tell whether the server cancels this handler; else it has raised the error of its own."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread, whose handler the server lets run
        return False
    return task is not None and task.cancelling() > 0


def reached_server(error: BaseException | None) -> bool:
    """Tell whether it was the server's own code that caught an error: it leaves a trace."""
    trace = None if error is None else error.__traceback__
    return trace is not None and _is_servers(trace)


def failed_in_server(error: BaseException | None) -> bool:
    """Tell whether an error arose where the server was sending, and not in how it was asked to."""
    trace = None if error is None else error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and _is_servers(trace) and not isinstance(error, grpc.aio.UsageError)


def can_be_sent(code: Any, details: Any, trailing_metadata: Any) -> bool:
    """Tell whether the server is sure to send what `abort` is called with."""
    try:
        (details or "").encode()
        return code not in {grpc.StatusCode.OK, 0} and is_legal(tuple(trailing_metadata))
    except Exception:  # noqa: BLE001  # the application's own
        return False


def is_answered(error: Exception, context: Any) -> bool:
    """Tell whether the server sends a status for what leaves a handler.

    Not for an abort, which has sent one, nor where it cannot: the client has left, or it stops.
    """
    if isinstance(error, grpc.aio.AbortError):
        # One that the handler has made itself is an error like any other.
        return not has_aborted(context)
    return type(error).__name__ not in {"ExecuteBatchError", "_ServerStoppedError"}


def has_failed_after(
    task_ref: "ref[asyncio.Task[Any]] | None", error: BaseException | None
) -> bool:
    """Tell whether the server's task failed to answer with an error that had left the handler."""
    task = None if task_ref is None else task_ref()
    if error is None or task is None or not task.done() or task.cancelled():
        return False
    return task.exception() not in {None, error}


def has_aborted(context: Any) -> bool:
    """Tell whether `abort` was called, even if its error was caught."""
    parts = _parts_of_state(asynchronous(context))
    return any(isinstance(part, grpc.aio.AbortError) for part in parts)


def is_stopping(context: Any) -> bool:
    """Tell whether the context's server has begun to stop."""
    servers = [part for part in _parts_of_state(context) if hasattr(part, "is_running")]
    return bool(servers) and not servers[0].is_running()


def _parts_of_state(context: Any) -> list[Any]:
    """Return what grpcio keeps of an RPC, also through another interceptor's own context."""
    contexts = [context]
    for _ in range(_MAX_DEPTH):
        parts = gc.get_referents(*contexts)
        for part in parts:
            if type(part).__name__ == "RPCState":
                return gc.get_referents(part)
        contexts = _contexts_in(parts)
    return []


def _contexts_in(parts: list[Any]) -> list[Any]:
    """Return what may be, or hold, a context. All that is alive hangs together somehow."""
    return [
        part
        for part in parts
        if type(part) is dict or (hasattr(part, "abort") and not isinstance(part, type))
    ]


def _is_servers(trace: TracebackType) -> bool:
    return trace.tb_frame.f_code.co_filename.endswith(".pxi")
