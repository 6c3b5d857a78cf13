"""The gRPC server under load, in a process of its own: bare, or with one interceptor.

    python -m benchmarks.rpc.serve aio|threaded NAME

NAME is that of a contestant. Prints its port. For each line that it reads it says which CPU time
the process and its main thread took until then; then it empties what the interceptor holds and
says so again. When its input ends it drains, and prints how many calls the interceptor saw and the
log's counters. Ours writes to where `AUDITLOG_DSN` says, with default settings; without that
variable its target swallows every batch.
"""

import asyncio
import dataclasses
import gc
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from auditlog import AuditLog
from benchmarks.rpc.contestants import AIO, THREADED, make
from benchmarks.rpc.service import service
from benchmarks.unshipped import Unshipped

WORKERS = 16
"""Threads of the threaded server; grpcio's documentation shows 10."""
_OPTIONS = (("grpc.so_reuseport", 0),)
_GRACE_S = 5.0


def main() -> None:
    """Serve."""
    kind, name = sys.argv[1:]
    audit = AuditLog() if "AUDITLOG_DSN" in os.environ else Unshipped()
    interceptor, count = make(kind, name, audit)
    interceptors = () if interceptor is None else (interceptor,)
    if kind == AIO:
        asyncio.run(_serve_aio(interceptors, count, audit))
    else:
        _serve_threaded(interceptors, count, audit)
    _say({"seen": count(), "stats": dataclasses.asdict(audit.stats())})


async def _serve_aio(
    interceptors: tuple[Any, ...], count: Callable[[], int], audit: AuditLog
) -> None:
    server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS)
    server.add_generic_rpc_handlers((service(AIO),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    async with audit:
        while await asyncio.to_thread(sys.stdin.readline):
            before = _clocks()
            await audit.flush()
            count()
            gc.collect()
            _say({"before": before, "after": _clocks()})
        await server.stop(_GRACE_S)


def _serve_threaded(
    interceptors: tuple[Any, ...], count: Callable[[], int], audit: AuditLog
) -> None:
    pool = ThreadPoolExecutor(WORKERS)
    server = grpc.server(pool, interceptors=interceptors, options=_OPTIONS)
    server.add_generic_rpc_handlers((service(THREADED),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    for _ in sys.stdin:
        before = _clocks()
        count()
        gc.collect()
        _say({"before": before, "after": _clocks()})
    server.stop(_GRACE_S).wait()
    # The last thread may still be on its way out of the last call.
    pool.shutdown()
    audit.close()


def _clocks() -> dict[str, float]:
    return {"process": time.process_time(), "thread": time.thread_time()}


def _say(figures: dict[str, Any]) -> None:
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
