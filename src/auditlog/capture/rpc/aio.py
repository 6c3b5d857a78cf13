"""An RPC of an asyncio server: stands between grpcio and the handler, and sees how it ends.

The exchange gives the server a handler of the same kind, made of its own methods. An answer that
was serialized ends the RPC, for nothing of Python's comes after that; everything else is concluded
when the server has sent its status. Facts that need a living call are read before: afterwards
`context.peer()` and its like end the process with a segmentation fault (grpcio 1.85, 2026-11-25).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final
from weakref import ref

import grpc
import grpc.aio

from auditlog.capture.context import current
from auditlog.capture.rpc.aio_ending import AioEnding
from auditlog.capture.rpc.inside_aio import (
    COROUTINE,
    GENERATOR,
    PLAIN,
    asynchronous,
    flavour,
    gave_a_handler,
)
from auditlog.capture.shared import Capture

# The class that grpcio's own functions make: other interceptors rely on its being a named tuple.
_Handler: Final[Any] = type(grpc.unary_unary_rpc_method_handler(lambda request, _: request))


class AioExchange(AioEnding):
    """One RPC of an asyncio server."""

    __slots__ = ("_behaviour", "resolving")

    _behaviour: Callable[[Any, Any], Any]
    """The handler's own function."""

    def __init__(self, capture: Capture, details: Any) -> None:
        AioEnding.__init__(self, capture, details)
        self.resolving = True

    def __del__(self) -> None:
        """Record the RPC whose handler was dropped: its client had gone before its request came."""
        if not self._finished:
            self.finish(None)

    async def wait_for_room(self) -> None:
        """Wait until the queue takes a row, or for as long as a setting says."""
        try:
            await self.recorder.room()
        except Exception as failure:  # noqa: BLE001  # a log of the application's own
            self.note_unreadable(failure)

    def refuse(self, error: BaseException) -> None:
        """Record that an interceptor behind this one raised, so that no handler will run."""
        self.resolving = False
        self._note(error, None)
        self.finish(None)

    def wrap(self, handler: Any) -> Any:
        """Return a handler of the same kind that does the same; never raises.

        For a method that is not there, one that answers as the server would: only handlers are
        told who asks.
        """
        self.resolving = False
        try:
            return self._unknown() if handler is None else self._wrapped(handler)
        except Exception as failure:  # noqa: BLE001  # not a handler of grpcio's, perhaps
            self._unseen = True
            self.note_unreadable(failure)
            return self._unwatched(handler)

    # What the server runs in the handler's place.

    async def _answer(self, request: Any, context: Any) -> Any:
        """Run a coroutine function that returns the answer."""
        self._context = context
        current.set(self)
        self.begin(context)
        try:
            response = await self._behaviour(request, context)
        except BaseException as error:
            self._note(error, context)
            self._task = _running_task()
            self._attach(context)
            raise
        else:
            if self.error_type is not None:
                self._forget_error()
            if self._has_code(context):
                self._note_return(context)
                self._attach(context)
            return response
        finally:
            if self.capture.asks:
                self._release()

    async def _converse(self, request: Any, context: Any) -> Any:
        """Run a coroutine function that calls `context.write`."""
        self._start(context)
        try:
            response = await self._behaviour(request, context)
        except BaseException as error:
            self._note(error, context)
            raise
        else:
            self._forget_error()
            self._note_return(context)
            return response
        finally:
            self._release()

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Run an asynchronous generator."""
        self._start(context)
        responses = self._behaviour(request, context)
        try:
            async for message in responses:
                try:
                    yield message
                except GeneratorExit:
                    await responses.aclose()
                    return
            self._forget_error()
            self._note_return(context)
        except BaseException as error:
            self._note(error, context)
            raise
        finally:
            self._release()

    def _answer_in_thread(self, request: Any, context: Any) -> Any:
        """Run a plain function; the server does so in a thread that knows no context variables."""
        self._call_on_loop(self._start_for_thread, context)
        outer = current.get()
        current.set(self)
        try:
            response = self._behaviour(request, context)
        except BaseException as error:
            self._note(error, context)
            raise
        else:
            self._note_return(context)
            return response
        finally:
            current.set(outer)
            self._call_on_loop(self._release)

    def _generate_in_thread(self, request: Any, context: Any) -> Any:
        """Call a plain function here, as the server does; what it returns, a thread consumes."""
        self._start(context)
        try:
            return self._consumed(self._behaviour(request, context), context)
        except BaseException as error:
            self._note(error, context)
            self._release()
            raise

    def _consumed(self, responses: Iterable[Any], context: Any) -> Iterator[Any]:
        outer = current.get()
        current.set(self)
        try:
            for message in responses:
                # The thread goes on to others, or another thread goes on with this.
                current.set(outer)
                try:
                    yield message
                except GeneratorExit:
                    return
                current.set(self)
            self._note_return(context)
        except BaseException as error:
            self._note(error, context)
            raise
        finally:
            current.set(outer)
            self._call_on_loop(self._release)

    async def _reject(self, _: Any, context: Any) -> None:
        """Answer for a method that is not there, in the server's words."""
        self._start(context)
        self._release()
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    def _take_request(self, data: bytes) -> Any:
        """Deserialize; if that fails, no handler will run."""
        try:
            return self.deserialize(data)
        except BaseException:
            self._finish_once()
            raise

    def _give_answer(self, message: Any) -> Any:
        """Serialize, which the server does with its last step before it sends."""
        try:
            return self.serialize(message)
        finally:
            self._ending = True
            if not self._finished:
                self.finish(None)

    # Parts of the above.

    def _unwatched(self, handler: Any) -> Any:
        """Return what serves in place of a handler that cannot be watched."""
        return handler

    def _unknown(self) -> Any:
        self._watch()
        return _Handler(True, True, None, None, None, None, None, self._reject)

    def _wrapped(self, handler: Any) -> Any:
        requests, responses = handler.request_streaming, handler.response_streaming
        self.serves(requests, responses, handler.request_deserializer, handler.response_serializer)
        if responses:
            return self._stream(handler, requests)
        behaviour = handler.stream_unary if requests else handler.unary_unary
        self._behaviour = behaviour
        if flavour(behaviour) is PLAIN:
            self._watch()
            run, take, give = self._answer_in_thread, self.deserialize, self.serialize
        else:
            if self.capture.asks:
                self._task = _running_task()
            run, take, give = self._answer, self._take_request, self._give_answer
        if requests:
            return _Handler(True, False, self.deserialize, give, None, None, run, None)
        return _Handler(False, False, take, give, run, None, None, None)

    def _stream(self, handler: Any, requests: bool) -> Any:
        self._watch()
        self._behaviour = handler.stream_stream if requests else handler.unary_stream
        run = getattr(self, _STREAMING[flavour(self._behaviour)])
        places = (None, None, None, run) if requests else (None, run, None, None)
        return _Handler(requests, True, self.deserialize, self.serialize, *places)

    def _watch(self) -> None:
        """Be told when the server's task is done, which is after the status was sent.

        It costs 1.5 µs (2026-11-25), which a plain answer is spared.
        """
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(self._over)
            self._task = ref(task)

    def _attach(self, context: Any) -> None:
        """Be told by the context, for what is rare: the two hold each other until collected."""
        try:
            context.add_done_callback(self._over)
        except Exception as failure:  # noqa: BLE001  # not the server's own context, perhaps
            self.note_unreadable(failure)

    def _has_code(self, context: Any) -> bool:
        """Tell whether a status was set, so that the answer may not be sent."""
        try:
            return context.code() is not None
        except Exception as failure:  # noqa: BLE001  # not the server's own context, perhaps
            self.note_unreadable(failure)
            return False

    def _over(self, source: Any) -> None:
        """Hear from the server's task, or from the context."""
        # Another interceptor may have had a task of its own look for the handler.
        if not self._finished and (self._context is not None or not gave_a_handler(source)):
            self.finish(None)

    def _finish_once(self) -> None:
        if not self._finished:
            self.finish(None)

    def _start(self, context: Any) -> None:
        """Begin the exchange on the event loop, while the server's task waits for it."""
        self._look_at(context)
        if not self._is_alive():
            current.set(self)
            self._attach(self._context)
        self.begin(context)

    def _start_for_thread(self, context: Any) -> None:
        """Do the same for what has begun in a thread, if the call still lives."""
        if self._finished:
            return
        self._look_at(context)
        if self._is_alive():
            self.begin(context)
        else:
            self._attach(self._context)

    def _look_at(self, context: Any) -> None:
        self._context = asynchronous(context)
        self._unseen = self._context is None

    def _release(self) -> None:
        """Let the application's callables see the context again, if the call still lives."""
        if self.capture.asks and self._is_alive():
            self.release()

    def _is_alive(self) -> bool:
        """Is it certain that the call lives? To be asked on the event loop."""
        task = None if self._task is None else self._task()
        return task is not None and not task.done()

    def _call_on_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        task = None if self._task is None else self._task()
        if task is None:
            function(*arguments)
            return
        with suppress(RuntimeError):  # the loop is closed and did not wait for the thread
            task.get_loop().call_soon_threadsafe(function, *arguments)


_STREAMING: Final = {
    COROUTINE: "_converse",
    GENERATOR: "_generate",
    PLAIN: "_generate_in_thread",
}


def _running_task() -> "ref[asyncio.Task[Any]] | None":
    task = asyncio.current_task()
    return None if task is None else ref(task)
