"""RPCs that together fill whatever their rows can hold, over a real port of either server."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

# Where the servers are, and the generated service.
sys.path.append(str(Path(__file__).parent / "rpc"))
sys.path.append(str(Path(__file__).parents[1] / "examples"))

from rpc_client import Client
from rpc_handlers import SHAPES, Handlers, handler
from rpc_interceptors import interceptor
from rpc_servers import serving
from rpc_steps import (
    ARRIVED,
    Step,
    abort,
    abort_with_status,
    arrive,
    drain,
    fail,
    note,
    say,
    send,
    set_trailing,
)

from auditlog import AuditLog
from auditlog.capture.rpc.finishing import FINISHING
from auditlog.quota import grpc_aio, grpc_sync
from parity_table import EVERYTHING, PARENT, SAID, Broken, closed, everything, refusing

SERVICE = "/parity.Door/"
WAIT_S = 10.0
RICH = rpc_status.to_status(status_pb2.Status(code=code_pb2.NOT_FOUND, message="no such order"))
METHODS: dict[str, tuple[str, Sequence[Step]]] = {
    "Get": ("uu", (set_trailing(("x-cost", "7")), send("a"))),
    "Watch": ("us", (send("a"), send("b"))),
    "Upload": ("su", (drain, send("a"))),
    "Chat": ("ss", (drain, send("a"), send("b"))),
    "Refuse": ("uu", (abort(grpc.StatusCode.NOT_FOUND, "no such order"),)),
    "RefuseRichly": ("uu", (abort_with_status(RICH),)),
    "Fail": ("uu", (fail(LookupError),)),
    "LeftOut": ("uu", (send("a"),)),
}
LIMITED = {"aio": grpc_aio.QuotaInterceptor, "threaded": grpc_sync.QuotaInterceptor}
LONG_METHOD = "x" * 100
"""The name of a method that is not there."""
RUN_ON = "RunOn"
REQUESTS = tuple(note(text).SerializeToString() for text in "ab")


class Certificate(NamedTuple):
    """One for both ends, which is also who vouches for it."""

    key: bytes
    chain: bytes


def certificate(folder: Path) -> Certificate:
    """Make one for localhost, as `openssl` does."""
    key, chain = folder / "key.pem", folder / "chain.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=parity",  # noqa: S607  # wherever it is
         "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", chain],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return Certificate(key.read_bytes(), chain.read_bytes())


def make_rpcs(dsn: str, server: str, identity: Certificate, *, annotated: bool) -> None:
    released = threading.Event()
    handlers = [Handlers(methods(server, released, annotated=annotated))]
    with AuditLog(dsn, settings=everything()) as audit:
        broken = interceptor(server, audit, policy=Broken())
        with connected(server, handlers, broken, identity) as client:
            client.call(f"{SERVICE}Get", "uu", REQUESTS)
        await_rows(audit, 1)
        watching = interceptor(server, audit, policy=EVERYTHING)
        with connected(server, handlers, watching, identity) as client:
            calls = call_all(client)
            await_rows(audit, 1 + 2 * calls)
            if server == "threaded":
                run_on(client, audit)
                released.set()
        rows = audit.stats().submitted
        limited = LIMITED[server](closed(audit))
        with connected(server, handlers, watching, identity, limited) as client:
            client.call(f"{SERVICE}Get", "uu", REQUESTS)
        await_rows(audit, rows + 3)
    with AuditLog(dsn, settings=refusing()) as audit:
        watching = interceptor(server, audit, policy=EVERYTHING)
        with connected(server, handlers, watching, identity) as client:
            client.call(f"{SERVICE}Get", "uu", REQUESTS)
        await_rows(audit, 2)


def methods(server: str, released: threading.Event, *, annotated: bool) -> dict[str, Any]:
    def run_on(call: Any) -> None:
        assert released.wait(WAIT_S)

    words = (say(**SAID),) if annotated else ()
    steps_of = {**METHODS, RUN_ON: ("uu", (arrive, run_on, send("a")))}
    return {
        f"{SERVICE}{name}": handler(kind, SHAPES[server][kind][0], (*words, *steps))
        for name, (kind, steps) in steps_of.items()
    }


def call_all(client: Client) -> int:
    """Call every method, and one that is not there; return how many calls that were."""
    kinds = {**{name: kind for name, (kind, _) in METHODS.items()}, LONG_METHOD: "uu"}
    for name, kind in kinds.items():
        client.call(f"{SERVICE}{name}", kind, REQUESTS, metadata=[("traceparent", PARENT)])
    return len(kinds)


def run_on(client: Client, audit: AuditLog) -> None:
    """Leave while the handler is at work, and have its row written without its end."""
    call = client.begin(f"{SERVICE}{RUN_ON}", "uu", REQUESTS)
    assert ARRIVED[client.request_id].wait(WAIT_S)
    rows = audit.stats().submitted
    call.cancel()
    # As at the end of the process: nobody is waited for any longer.
    await_rows(audit, rows + 1, meanwhile=FINISHING.finish_all)


def await_rows(
    audit: AuditLog, count: int, *, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Wait for as many rows: a client sees the end of its call before the server does."""
    deadline = time.monotonic() + WAIT_S
    while audit.stats().submitted < count:
        assert time.monotonic() < deadline, audit.stats()
        meanwhile()
        time.sleep(0.005)


@contextmanager
def connected(
    server: str, handlers: Sequence[Any], watching: Any, identity: Certificate, *more: Any
) -> Iterator[Client]:
    """A client that is known by its certificate."""
    pair, root = (identity.key, identity.chain), identity.chain
    credentials = grpc.ssl_server_credentials([pair], root, require_client_auth=True)
    with serving(server, handlers, [watching, *more], credentials=credentials) as running:
        target = running.target.replace("127.0.0.1", "localhost")
        known = grpc.ssl_channel_credentials(root, *pair)
        with grpc.secure_channel(target, known) as channel:
            yield Client(channel)
