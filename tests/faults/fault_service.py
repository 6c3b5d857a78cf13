"""The service under test, a process of its own: `python fault_service.py KIND PORT`.

KIND is `grpc_aio`, `grpc_sync` or `script`; ASGI servers load `fault_service:application`. All
settings come from `AUDITLOG_*`. A request says in its target what is to be done with it, and its
id ends in the row.
"""

import asyncio
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs

from fault_journal import Journal

from auditlog import AuditLog, AuditMiddleware, Outcome, annotate

METHOD = "/faults.Requests/Call"
GRPC_OPTIONS = (("grpc.so_reuseport", 0),)


def application() -> Any:
    """Make the ASGI application, with the log around it."""
    from starlette.applications import Starlette  # noqa: PLC0415  # the others do without
    from starlette.routing import Route  # noqa: PLC0415  # likewise

    app = Starlette(routes=[Route("/r/{id}", _answer)])
    return AuditMiddleware(app, audit=AuditLog())


async def _answer(request: Any) -> Any:
    from starlette.responses import PlainTextResponse, StreamingResponse  # noqa: PLC0415

    identity: str = request.path_params["id"]
    query = request.query_params
    _annotate(query)
    await asyncio.sleep(float(query.get("wait", 0)))
    status = int(query.get("status", 200))
    if "parts" not in query:
        return PlainTextResponse(identity, status)

    async def parts() -> Any:
        for letter in identity:
            yield letter
            await asyncio.sleep(0)

    return StreamingResponse(parts(), status, media_type="text/plain")


def _annotate(query: Any) -> None:
    if user := query.get("user"):
        annotate(user_id=user)
    annotate(padding="x" * int(query.get("pad", 0)))


async def _serve_aio(port: int) -> None:
    import grpc.aio  # noqa: PLC0415  # the others do without

    from auditlog.capture.grpc_aio import AuditInterceptor  # noqa: PLC0415  # likewise

    async def call(request: bytes, context: Any) -> bytes:
        query = _query(request)
        _annotate(query)
        await asyncio.sleep(float(query.get("wait", 0)))
        if query.get("status") == "403":
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return request

    audit = AuditLog()
    server = grpc.aio.server(interceptors=[AuditInterceptor(audit)], options=GRPC_OPTIONS)
    server.add_generic_rpc_handlers((_methods(call),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with audit:
        await server.start()
        await stopped.wait()
        await server.stop(2)


def _serve_sync(port: int) -> None:
    import grpc  # noqa: PLC0415  # the others do without

    from auditlog.capture.grpc_sync import AuditInterceptor  # noqa: PLC0415  # likewise

    pause = threading.Event()

    def call(request: bytes, context: Any) -> bytes:
        query = _query(request)
        _annotate(query)
        pause.wait(float(query.get("wait", 0)))
        if query.get("status") == "403":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        return request

    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    with AuditLog() as audit, ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool, interceptors=[AuditInterceptor(audit)], options=GRPC_OPTIONS)
        server.add_generic_rpc_handlers((_methods(call),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        stopped.wait()
        server.stop(2).wait()


def _methods(call: Any) -> Any:
    import grpc  # noqa: PLC0415  # the others do without

    handler = grpc.unary_unary_rpc_method_handler(call)
    service, _, method = METHOD.strip("/").partition("/")
    return grpc.method_handlers_generic_handler(service, {method: handler})


def _query(request: bytes) -> dict[str, str]:
    """Read what a request asks for, as an HTTP target has it."""
    target = request.decode().partition("?")[2]
    return {name: values[-1] for name, values in parse_qs(target).items()}


def _run_script(journal: Journal, run: str) -> None:
    """Record events one after the other until told to stop; the journal is this process's own."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    number = 0
    with AuditLog() as audit:
        while not stopped.wait(0.001):
            identity = f"{run}-{number}"
            number += 1
            journal.sent(identity)
            outcome = audit.record("fault.event", fault_id=identity)
            if outcome is Outcome.DROPPED:
                journal.failed(identity, "dropped")
            else:
                journal.answered(identity, 200)


def main() -> None:
    """Serve until SIGTERM."""
    kind, argument = sys.argv[1:3]
    if kind == "grpc_aio":
        asyncio.run(_serve_aio(int(argument)))
    elif kind == "grpc_sync":
        _serve_sync(int(argument))
    else:
        _run_script(Journal(argument), sys.argv[3])


if __name__ == "__main__":
    main()
