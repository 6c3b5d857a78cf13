"""What goes wrong beside the handler: messages, metadata, methods, clients and deadlines."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rpc_case import ONE_AND_MANY, SILENCE, STREAMED_ANSWERS, STREAMED_REQUESTS, Case
from rpc_client import Client, Seen, look
from rpc_steps import (
    ARRIVED,
    OVER,
    Send,
    arrive,
    cancel,
    drain,
    fail,
    hang,
    read,
    send,
    send_initial,
    set_trailing,
)

CANCELLED, UNKNOWN, DEADLINE, UNIMPLEMENTED, INTERNAL = 1, 2, 4, 12, 13
GARBAGE = b"\xff\xff"
WAIT_S = 10.0


def refuse(_: Any) -> bytes:
    raise ValueError("it cannot be told in bytes")


def give_nothing(_: Any) -> None:
    return None


def cancel_at_the_handler(client: Client, method: str, kind: str, sends: Sequence[bytes]) -> Seen:
    """Once the handler is at work."""
    call = client.begin(method, kind, sends)
    assert ARRIVED[client.request_id].wait(WAIT_S)
    call.cancel()
    return look(call, streams=kind[1] == "s")


def cancel_mid_stream(client: Client, method: str, kind: str, sends: Sequence[bytes]) -> Seen:
    """Once the first message has come."""
    call = client.begin(method, kind, sends)
    next(call)
    assert ARRIVED[client.request_id].wait(WAIT_S)
    call.cancel()
    return look(call, streams=True)


def break_off_upload(client: Client, method: str, kind: str, sends: Sequence[bytes]) -> Seen:
    """With the client's stream still open."""
    call = client.begin(method, kind, _endless(client))
    assert ARRIVED[client.request_id].wait(WAIT_S)
    call.cancel()
    return look(call, streams=kind[1] == "s")


def _endless(client: Client) -> Any:
    yield b""
    OVER[client.request_id].wait(WAIT_S)


MESSAGES = [
    Case(
        name="None without a serializer",
        steps=(drain, Send(None)),
        serializer=None,
        on={"threaded one": {"code": INTERNAL}},
    ),
    # A stream of the threaded server ends with None.
    Case(
        name="None",
        steps=(drain, Send(None)),
        code=UNKNOWN,
        error="TypeError",
        on={"threaded one": {"code": INTERNAL}, "threaded many": {"code": 0, "error": None}},
    ),
    Case(
        name="message of another type",
        steps=(drain, Send("text")),
        code=UNKNOWN,
        error="TypeError",
        on={"threaded": {"code": INTERNAL}},
    ),
    Case(
        name="bytes without a serializer",
        kinds=ONE_AND_MANY,
        steps=(drain, Send(b"raw")),
        serializer=None,
    ),
    Case(
        name="bytes without protobuf",
        kinds=ONE_AND_MANY,
        steps=(drain, Send(b"raw")),
        serializer=None,
        deserializer=None,
    ),
    # It breaks off in the threaded server's own code.
    Case(
        name="text without a serializer",
        steps=(drain, Send("text")),
        serializer=None,
        kinds=ONE_AND_MANY,
        on={"threaded": SILENCE},
    ),
    Case(
        name="number without a serializer",
        steps=(drain, Send(5)),
        serializer=None,
        code=UNKNOWN,
        error=...,
        kinds=ONE_AND_MANY,
        on={"threaded": SILENCE},
    ),
    Case(
        name="serializer that raises",
        steps=(drain, send("a")),
        serializer=refuse,
        code=UNKNOWN,
        error="ValueError",
        on={"threaded": {"code": INTERNAL}},
    ),
    Case(
        name="serializer that gives None",
        kinds=ONE_AND_MANY,
        steps=(drain, send("a")),
        serializer=give_nothing,
        on={"threaded": {"code": INTERNAL}},
    ),
    Case(
        name="second message of another type",
        steps=(drain, send("a"), Send(5)),
        code=UNKNOWN,
        error="TypeError",
        kinds=STREAMED_ANSWERS,
        on={"threaded": {"code": INTERNAL}},
    ),
    Case(
        name="garbage",
        steps=(drain, send("a")),
        sends=(GARBAGE,),
        code=UNKNOWN,
        error="DecodeError",
        on={"threaded": {"code": INTERNAL}},
    ),
    Case(
        name="garbage later",
        steps=(drain, send("a")),
        sends=(b"", GARBAGE),
        code=UNKNOWN,
        error="DecodeError",
        kinds=STREAMED_REQUESTS,
        on={"threaded": {"code": INTERNAL}},
    ),
    Case(
        name="garbage that nobody reads",
        steps=(send("a"),),
        sends=(GARBAGE,),
        kinds=STREAMED_REQUESTS,
    ),
    Case(
        name="deserializer that gives None",
        steps=(drain, send("a")),
        deserializer=give_nothing,
        on={"threaded": {"code": INTERNAL, "error": ...}},
    ),
    Case(
        name="stream that nobody reads",
        steps=(send("a"),),
        sends=(b"",) * 5,
        kinds=STREAMED_REQUESTS,
    ),
    Case(
        name="stream that is read in part",
        steps=(read, send("a")),
        sends=(b"",) * 5,
        kinds=STREAMED_REQUESTS,
    ),
    Case(name="stream that is empty", steps=(drain, send("a")), sends=(), kinds=STREAMED_REQUESTS),
    Case(name="no message", steps=(drain,), kinds=STREAMED_ANSWERS),
]

METADATA = [
    Case(
        name="initial metadata",
        steps=(drain, send_initial(("i", "1"), ("i", "2"), ("i-bin", b"\0\1")), send("a")),
    ),
    Case(
        name="initial metadata then raise",
        steps=(drain, send_initial(("i", "1")), fail(lambda: RuntimeError("broken"))),
        code=UNKNOWN,
        error="RuntimeError",
    ),
    Case(
        name="initial metadata twice",
        kinds=ONE_AND_MANY,
        steps=(drain, send_initial(("i", "1")), send_initial(("i", "2")), send("a")),
        code=UNKNOWN,
        error=...,
    ),
    # The core refuses it and ends the RPC, which an interceptor sees as a cancellation.
    Case(
        name="upper case in initial metadata",
        steps=(drain, send_initial(("I", "1")), send("a")),
        code=INTERNAL,
        row=...,
        outcome=...,
        error=...,
    ),
    Case(
        name="upper case in trailing metadata",
        steps=(drain, set_trailing(("T", "1")), send("a")),
        code=INTERNAL,
        error=...,
    ),
]

ENDINGS = [
    Case(
        name="cancelled by the client",
        steps=(drain, arrive, hang, send("a")),
        code=CANCELLED,
        derived=True,
        talk=cancel_at_the_handler,
    ),
    Case(
        name="cancelled mid-stream",
        steps=(send("a"), arrive, hang, send("b")),
        code=CANCELLED,
        derived=True,
        talk=cancel_mid_stream,
        kinds=STREAMED_ANSWERS,
        comparable=False,
    ),
    Case(
        name="upload that is broken off",
        steps=(read, arrive, hang, send("a")),
        code=CANCELLED,
        derived=True,
        talk=break_off_upload,
        kinds=STREAMED_REQUESTS,
    ),
    Case(
        name="deadline in the handler",
        steps=(drain, hang, send("a")),
        code=DEADLINE,
        derived=True,
        timeout=0.1,
        comparable=False,
    ),
    Case(
        name="deadline mid-stream",
        steps=(drain, send("a"), hang, send("b")),
        code=DEADLINE,
        derived=True,
        timeout=0.1,
        comparable=False,
        kinds=STREAMED_ANSWERS,
    ),
    Case(
        name="cancelled by the handler",
        steps=(drain, cancel, send("a")),
        code=CANCELLED,
        derived=True,
        servers=("threaded",),
    ),
]

# What a server answers for an error is its own affair, and not to be seen from an interceptor.
CASES = [replace(case, derived=True) for case in (*MESSAGES, *METADATA)] + ENDINGS
