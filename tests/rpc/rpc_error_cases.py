"""Errors: what a handler raises, and details that are not what they should be."""

import asyncio
from dataclasses import replace
from typing import Never

from grpc import RpcError, StatusCode
from rpc_case import ONE_AND_MANY, SILENCE, STREAMED_ANSWERS, Case
from rpc_steps import abort, drain, fail, send, set_code, set_details

GONE = StatusCode.NOT_FOUND
UNKNOWN = 2
# With the other metadata just below 8 KiB, from where on a client refuses by chance.
LONG = "x" * 7900
NON_ASCII = "Größe – 日本 100%"


class UnprintableError(Exception):
    def __str__(self) -> Never:
        raise RuntimeError("no")


def broken() -> RuntimeError:
    return RuntimeError("broken")


DETAILS = [
    Case(
        name="details that are not ASCII",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(GONE, NON_ASCII)),
        code=5,
        details=NON_ASCII,
    ),
    Case(
        name="details of almost 8 KiB",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(GONE, LONG)),
        code=5,
        details=LONG,
    ),
    # The client refuses what the server has sent.
    Case(
        name="details of 80 KB",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(GONE, "x" * 80_000)),
        code=8,
        row=5,
    ),
    Case(
        name="details with control characters",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(GONE, "a\nb\tc")),
        code=5,
        details="a\nb\tc",
    ),
    Case(name="details with NUL", kinds=ONE_AND_MANY, steps=(drain, abort(GONE, "a\0b")), code=5),
    Case(
        name="details with a lone surrogate",
        steps=(drain, abort(GONE, "a\ud800")),
        code=5,
        error=...,
        kinds=ONE_AND_MANY,
        on={"aio": SILENCE},
    ),
    Case(
        name="details as bytes",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(GONE, b"gone\xff")),  # type: ignore[arg-type]
        code=5,
        on={"aio": {"code": UNKNOWN, "error": "TypeError", "derived": True}},
    ),
    Case(
        name="details None",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(GONE, None)),  # type: ignore[arg-type]
        code=5,
        on={"threaded": {"error": ...}},
    ),
]

RAISES = [
    Case(name="raise", steps=(drain, fail(broken)), code=UNKNOWN, error="RuntimeError"),
    Case(name="raise before reading", steps=(fail(broken),), code=UNKNOWN, error="RuntimeError"),
    Case(
        name="raise after a message",
        steps=(drain, send("a"), fail(broken)),
        code=UNKNOWN,
        error="RuntimeError",
        kinds=STREAMED_ANSWERS,
    ),
    Case(
        name="set_code then raise",
        steps=(drain, set_code(GONE), fail(broken)),
        code=5,
        error="RuntimeError",
    ),
    Case(
        name="set_code with a number then raise",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code(5), fail(broken)),
        code=5,
        error="RuntimeError",
        on={"threaded": {"code": UNKNOWN}},
    ),
    # What the threaded server then sends says OK; a client of one answer gets None for it.
    Case(
        name="set_code with OK then raise",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code(StatusCode.OK), fail(broken)),
        code=UNKNOWN,
        error="RuntimeError",
        on={"threaded": {"code": 0, "outcome": ...}},
    ),
    Case(
        name="set_code and set_details then raise",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code(GONE), set_details("gone"), fail(broken)),
        code=5,
        error="RuntimeError",
        on={"threaded": {"details": "gone"}},
    ),
    Case(
        name="raise what cannot be printed",
        steps=(drain, fail(UnprintableError)),
        code=UNKNOWN,
        error="UnprintableError",
        kinds=ONE_AND_MANY,
        on={
            "aio": SILENCE,
            "threaded many": SILENCE,
        },
    ),
    Case(
        name="raise StopIteration",
        steps=(drain, fail(StopIteration)),
        code=UNKNOWN,
        error=...,
        kinds=("us", "ss"),
    ),
    Case(
        name="raise StopIteration, one answer",
        steps=(drain, fail(StopIteration)),
        code=UNKNOWN,
        error=...,
        kinds=("uu", "su"),
        on={"aio sync": SILENCE},
    ),
    Case(
        name="raise StopAsyncIteration",
        kinds=ONE_AND_MANY,
        steps=(drain, fail(StopAsyncIteration)),
        code=UNKNOWN,
        error=...,
    ),
    Case(
        name="raise TimeoutError",
        kinds=ONE_AND_MANY,
        steps=(drain, fail(TimeoutError)),
        code=2,
        error="TimeoutError",
    ),
    Case(
        name="raise RpcError",
        kinds=ONE_AND_MANY,
        steps=(drain, fail(RpcError)),
        code=UNKNOWN,
        error="RpcError",
    ),
    # No server has an answer to these.
    *(
        Case(
            name=f"raise {error.__name__}",
            steps=(drain, fail(error)),
            error=...,
            servers=servers,
            kinds=ONE_AND_MANY,
            on=dict.fromkeys(servers, SILENCE),
        )
        for error, servers in (
            (GeneratorExit, ("aio", "threaded")),
            (asyncio.CancelledError, ("aio", "threaded")),
            # In a coroutine these two end the event loop itself.
            (SystemExit, ("threaded",)),
            (KeyboardInterrupt, ("threaded",)),
        )
    ),
]

# What a server answers for an error is its own affair, and not to be seen from an interceptor.
CASES = [*DETAILS, *(replace(case, derived=True) for case in RAISES)]
