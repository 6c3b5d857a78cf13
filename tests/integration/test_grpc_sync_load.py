"""The threaded server under load, up to the database, and to the end of the process."""

import gc
import os
import random
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
import pytest

import trail
from auditlog import AuditLog, annotate
from threaded_scene import WAIT_S, Interceptor, Trail, serving, ss, su, us, uu

CLIENTS, CALLS = 64, 12
MESSAGES = 5_000


def test_one_row_for_each_rpc_of_64_clients(any_dsn: str) -> None:
    """Of every kind and end, each with its own words, stored when the block is left."""

    def answer(request: bytes, context: Any) -> bytes:
        annotate(user_id=request.decode())
        if request.endswith(b"3"):
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        if request.endswith(b"4"):
            raise ValueError(request)
        return request

    def talk(request: bytes, _: Any) -> Iterator[bytes]:
        for _ in range(3):
            yield request
        annotate(user_id=request.decode())

    def collect(requests: Any, _: Any) -> bytes:
        for request in requests:
            annotate(user_id=request.decode())
        return b""

    def client(number: int) -> None:
        for call in range(CALLS):
            name = f"{number:02}.{call:02}".encode()
            calls[call % len(calls)](name)

    with (
        AuditLog(any_dsn, settings=trail.quick()) as audit,
        serving(audit, threads=16, answer=uu(answer), talk=us(talk), collect=su(collect)) as scene,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        calls: list[Callable[[bytes], Any]] = [
            lambda name: list(scene.watch("talk", name)),
            lambda name: scene.upload("collect", [name] * 2),
            lambda name: scene.begin("answer", name).exception(WAIT_S),
            lambda name: scene.begin("none", name).exception(WAIT_S),
        ]
        list(clients.map(client, range(CLIENTS)))
    stored = Counter(
        (row["request_method"], row["user_id"]) for row in trail.rows(any_dsn) if row["user_id"]
    )
    assert set(stored.values()) == {1}
    assert len(stored) == CLIENTS * CALLS * 3 // 4
    assert len(trail.rows(any_dsn)) == CLIENTS * CALLS
    assert trail.ledger_agrees(any_dsn)
    assert trail.adds_up(audit.stats())


@pytest.mark.parametrize("limit", [None, 4])
def test_one_row_for_each_rpc_that_came(limit: int | None) -> None:
    """Of clients that give up at any moment, with too few threads and too many RPCs."""
    memory = Trail()
    came = 0

    def count(continuation: Any, details: Any) -> Any:
        nonlocal came
        came += 1  # on the server's only thread
        return continuation(details)

    def client(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311  # nothing is kept secret by it
        for _ in range(20):
            kinds = [(scene.begin, "quick", _result), (scene.watch, "talk", list)]
            begin, method, take = chance.choice(kinds)
            method = chance.choice([method, "none"])
            call = begin(method, timeout=chance.choice([None, 0.001, 0.004, 0.02]))
            if chance.random() < 0.3:
                call.cancel()
            with suppress(grpc.RpcError, grpc.FutureCancelledError):
                take(call)

    with (
        serving(
            memory,
            threads=3,
            limit=limit,
            before=[Interceptor(count)],
            quick=uu(lambda *_: b""),
            talk=us(lambda *_: iter([b"1"] * 5)),
        ) as scene,
        ThreadPoolExecutor(16) as clients,
    ):
        list(clients.map(client, range(16)))
        scene.server.stop(None).wait(WAIT_S)
        assert came
        assert len(memory.wait_for(came)) == came


def _result(call: Any) -> Any:
    return call.result(WAIT_S)


@pytest.mark.parametrize("kind", ["in", "out", "both"])
def test_stream_takes_no_memory_by_its_length(kind: str) -> None:
    """Counters instead of messages, in every direction."""
    memory = Trail()
    marks: list[int] = []

    def mark(number: int) -> None:
        if number in {MESSAGES // 4, MESSAGES - 1}:
            gc.collect()
            marks.append(tracemalloc.get_traced_memory()[0])

    def consume(requests: Any, _: Any) -> bytes:
        for number, _ in enumerate(requests):
            mark(number)
        return b""

    def produce(_: Any, __: Any) -> Iterator[bytes]:
        for number in range(MESSAGES):
            mark(number)
            yield b"x"

    def echo(requests: Any, _: Any) -> Iterator[bytes]:
        for number, request in enumerate(requests):
            mark(number)
            yield request

    with serving(memory, consume=su(consume), produce=us(produce), echo=ss(echo)) as scene:
        tracemalloc.start()
        try:
            if kind == "in":
                scene.upload("consume", (b"x" for _ in range(MESSAGES)))
            elif kind == "out":
                assert sum(1 for _ in scene.watch("produce")) == MESSAGES
            else:
                assert sum(1 for _ in scene.chat("echo", [b"x"] * MESSAGES)) == MESSAGES
        finally:
            tracemalloc.stop()
        metadata = memory.one().metadata or {}
    assert metadata["audit.messages_in"] == (1 if kind == "out" else MESSAGES)
    assert metadata["audit.messages_out"] == (1 if kind == "in" else MESSAGES)
    assert marks[1] - marks[0] < 100_000


def test_finished_rpcs_leave_nothing_behind() -> None:
    """No cycle is left for the collector to find, whatever became of the RPC."""
    memory = Trail()

    def answer(request: bytes, context: Any) -> bytes:
        if request == b"abort":
            context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        return request

    with serving(memory, answer=uu(answer), talk=us(lambda *_: iter([b"1"]))) as scene:

        def rpcs() -> None:
            scene.call("answer")
            list(scene.watch("talk"))
            scene.begin("none").exception(WAIT_S)
            scene.begin("answer", b"abort").exception(WAIT_S)

        rpcs()
        memory.wait_for(4)
        gc.collect()
        # Other tests in this process may have left some that their servers still hold.
        others = exchanges()
        before = {id(each) for each in others}
        gc.disable()
        try:
            rpcs()
            memory.wait_for(8)
            alive = [each for each in exchanges() if id(each) not in before]
        finally:
            gc.enable()
    assert len(alive) <= 1  # the last one, whose turn on the server's thread is not over


def exchanges() -> list[object]:
    """Those in memory."""
    return [each for each in gc.get_objects() if type(each).__name__ == "ThreadedExchange"]


PREAMBLE = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import grpc
from auditlog import AuditLog, Settings, annotate
from auditlog.capture.grpc_sync import AuditInterceptor

dsn = sys.argv[1]
settings = Settings(life_rows=False, batch_age_s=60, drain_timeout_s=10)
audit = AuditLog(dsn, settings=settings)

class Methods(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(answer)

def answer(request, context):
    annotate(user_id=request.decode())
    if request == b"slow":
        time.sleep(0.5)
        annotate(event_type="said late")
    return request

def serve():
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[AuditInterceptor(audit)])
    server.add_generic_rpc_handlers((Methods(),))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    return server, grpc.insecure_channel(target).unary_unary("/t/answer")
"""
ENDS = {
    "nothing is closed": "server, call = serve()\ncall(b'1')\ncall(b'2')",
    "the server is stopped": """
        server, call = serve()
        call(b"1")
        call(b"2")
        server.stop(None).wait()
        """,
    "the log is closed first": """
        with audit:
            server, call = serve()
            call(b"1")
        call(b"2")
        server.stop(None).wait()
        """,
    "a signal ends it": """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server, call = serve()
        call(b"1")
        call(b"2")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
        """,
    "a server in a forked child": """
        pid = os.fork()
        if not pid:
            server, call = serve()
            call(b"1")
            call(b"2")
            server.stop(None).wait()
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        """,
}


def run(dsn: str, program: str) -> str:
    """Run a program; return what it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PREAMBLE + textwrap.dedent(program), dsn],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("program", ENDS.values(), ids=ENDS)
def test_every_row_is_stored_when_the_process_ends(any_dsn: str, program: str) -> None:
    """Once each, and without a word on stderr."""
    assert run(any_dsn, program) == ""
    assert trail.users(any_dsn) == ["1", "2"]
    assert trail.ledger_agrees(any_dsn)


def test_handler_that_outlives_its_server_is_waited_for(any_dsn: str) -> None:
    """Its client was cut off; what it says before the process ends is stored."""
    program = """
        server, call = serve()
        future = call.future(b"slow")
        time.sleep(0.2)
        server.stop(None).wait()
        assert future.exception() is not None
        """
    assert run(any_dsn, program) == ""
    (row,) = trail.rows(any_dsn)
    assert (row["user_id"], row["event_type"], row["response_status"]) == ("slow", "said late", 14)


def test_writer_starts_on_a_thread_of_its_own(any_dsn: str) -> None:
    """A server whose log nobody starts: the first RPC does."""
    audit = AuditLog(any_dsn, settings=trail.quick())
    with serving(audit, ok=uu(lambda *_: b"")) as scene:
        scene.call("ok")
    assert "auditlog" in {thread.name for thread in threading.enumerate()}
    audit.close()
    assert len(trail.rows(any_dsn)) == 1
