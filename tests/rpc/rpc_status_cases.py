"""Statuses: what a handler returns, sets and aborts with."""

from typing import Any

from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2
from grpc import StatusCode
from grpc_status import rpc_status
from rpc_case import ONE_AND_MANY, SILENCE, STREAMED_ANSWERS, Case
from rpc_steps import (
    Caught,
    abort,
    abort_with_status,
    abort_with_trailing_argument,
    drain,
    fail,
    nested,
    send,
    set_code,
    set_details,
    set_trailing,
)

DENIED, GONE = StatusCode.PERMISSION_DENIED, StatusCode.NOT_FOUND
LATER, LOST = StatusCode.ABORTED, StatusCode.DATA_LOSS
UNKNOWN = 2


def rich_status() -> Any:
    details = any_pb2.Any()
    details.Pack(status_pb2.Status(code=1, message="more"))
    return rpc_status.to_status(
        status_pb2.Status(code=code_pb2.FAILED_PRECONDITION, message="rich", details=[details])
    )


RETURNS = [
    Case(name="return", steps=(drain, send("a"))),
    Case(
        name="set_code then return",
        steps=(drain, set_code(GONE), set_details("gone"), send("a")),
        code=5,
        details="gone",
    ),
    Case(
        name="set_code with a number",
        steps=(drain, set_code(5), set_details("gone"), send("a")),
        code=5,
        details="gone",
        on={"threaded": {"code": UNKNOWN}},
    ),
    Case(
        name="set_code with 99",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code(99), send("a")),
        code=UNKNOWN,
    ),
    Case(
        name="set_code with text",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code("NOT_FOUND"), send("a")),
        code=UNKNOWN,
    ),
    Case(
        name="set_code with a pair",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code((5, "not found")), send("a")),
        code=UNKNOWN,
    ),
    Case(
        name="set_code with OK",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code(StatusCode.OK), send("a")),
    ),
    Case(
        name="set_code with 0",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code(0), send("a")),
        on={"threaded": {"code": UNKNOWN}},
    ),
    Case(
        name="set_code after a message",
        steps=(drain, send("a"), set_code(LOST), set_details("lost")),
        code=15,
        details="lost",
        kinds=STREAMED_ANSWERS,
    ),
    *(
        Case(
            name=f"set_code with {code.name}",
            steps=(drain, set_code(code)),
            code=code.value[0],
            kinds=("uu",),
        )
        for code in StatusCode
        if code is not StatusCode.OK
    ),
]

ABORTS = [
    Case(name="abort", steps=(drain, abort(GONE, "gone")), code=5, details="gone"),
    Case(
        name="abort without details",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(GONE)),
        code=5,
        details="",
    ),
    Case(name="abort before reading", steps=(abort(GONE, "gone"),), code=5, details="gone"),
    Case(
        name="abort in a helper", steps=(drain, nested(abort(DENIED, "no"))), code=7, details="no"
    ),
    Case(
        name="abort after messages",
        steps=(drain, send("a"), send("b"), abort(GONE, "gone")),
        code=5,
        details="gone",
        kinds=STREAMED_ANSWERS,
    ),
    # On the asynchronous server it is on the wire at once, on the other one nothing is before the
    # end. What is set after that, an interceptor cannot tell from what was sent.
    Case(
        name="abort that is caught, then an answer",
        steps=(drain, Caught(abort(GONE, "gone")), send("b")),
        code=5,
        details="gone",
        on={"aio": {"derived": True}},
    ),
    Case(
        name="abort that is caught, then an error",
        steps=(drain, Caught(abort(GONE, "gone")), fail(RuntimeError)),
        code=5,
        details="gone",
        error=...,
        on={"aio": {"derived": True}},
    ),
    Case(
        name="abort twice",
        kinds=ONE_AND_MANY,
        steps=(drain, Caught(abort(GONE, "gone")), abort(LATER, "second")),
        code=10,
        details="second",
        error=...,
        on={"aio": {"code": 5, "details": "gone", "derived": True}},
    ),
    Case(
        name="abort that is caught, then set_code",
        steps=(drain, Caught(abort(GONE, "gone")), set_code(LATER), set_details("second")),
        code=10,
        details="second",
        on={"aio": {"code": 5, "details": "gone", "row": ..., "outcome": ...}},
    ),
    Case(
        name="abort with OK",
        steps=(drain, abort(StatusCode.OK, "fine")),
        code=UNKNOWN,
        kinds=ONE_AND_MANY,
        on={"aio": SILENCE | {"error": ...}},
    ),
    Case(
        name="abort with a number",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(5, "gone")),
        code=5,
        details="gone",
        on={"threaded": {"code": UNKNOWN}},
    ),
    Case(
        name="abort with 99",
        kinds=ONE_AND_MANY,
        steps=(drain, abort(99, "gone")),
        code=UNKNOWN,
        details="gone",
    ),
    Case(
        name="abort with text",
        kinds=ONE_AND_MANY,
        steps=(drain, abort("GONE", "gone")),
        code=UNKNOWN,
    ),
    Case(
        name="abort with trailing metadata",
        steps=(drain, abort(GONE, "gone", (("a-bin", b"\0\xff"), ("k", "1"), ("k", "2")))),
        code=5,
        details="gone",
    ),
    Case(
        name="abort with trailing metadata as an argument",
        kinds=ONE_AND_MANY,
        steps=(drain, abort_with_trailing_argument(GONE, "gone", (("k", "1"),))),
        code=5,
        details="gone",
        servers=("aio",),
    ),
    # A function in a thread of the asynchronous server has a context without this method.
    Case(
        name="abort_with_status",
        steps=(drain, abort_with_status(rich_status())),
        code=9,
        details="rich",
        on={
            "aio sync": {
                "code": UNKNOWN,
                "details": None,
                "error": "AttributeError",
                "derived": True,
            }
        },
    ),
    Case(
        name="set_code then abort",
        kinds=ONE_AND_MANY,
        steps=(drain, set_code(GONE), set_details("gone"), abort(LATER, "later")),
        code=10,
        details="later",
    ),
]

TRAILING = [
    Case(
        name="trailing metadata",
        steps=(drain, set_trailing(("t", "1"), ("t", "2"), ("t-bin", b"\xff\0")), send("a")),
    ),
    # The client refuses what the server has sent.
    Case(
        name="huge trailing metadata",
        kinds=ONE_AND_MANY,
        steps=(drain, set_trailing(("t", "x" * 20_000))),
        code=8,
        row=0,
    ),
]

CASES = [*RETURNS, *ABORTS, *TRAILING]
