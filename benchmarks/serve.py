"""The server under load, in a process of its own: one uvicorn worker around one application.

    python -m benchmarks.serve bare|audited|limited|NAME

`limited` is audited, under quotas that nobody uses up. NAME is a competitor's distribution. Prints
its port, and for each line that it reads the CPU seconds it took so far; when its input ends, it
drains, and prints the log's counters. The log goes where `AUDITLOG_DSN` says, with default
settings.
"""

import dataclasses
import json
import socket
import sys
import threading
import time

import uvicorn

from auditlog import AuditLog, AuditMiddleware
from auditlog.quota.asgi import QuotaMiddleware
from auditlog.quota.model import MAX_UNITS, Quota
from auditlog.quota.quotas import Quotas
from benchmarks.competitors import MIDDLEWARES
from benchmarks.workload import application

LIMITED = "limited"
QUOTAS = (
    Quota("requests", limit=MAX_UNITS),
    Quota("per-address", limit=MAX_UNITS, period="minute", rolling=True, per="address"),
)


def main() -> None:
    """Serve."""
    app = application()
    name = sys.argv[1]
    audit = AuditLog() if name in {"audited", LIMITED} else None
    if audit is not None:
        if name == LIMITED:
            app.add_middleware(QuotaMiddleware, quotas=Quotas(audit, QUOTAS))
        app.add_middleware(AuditMiddleware, audit=audit)
    for competitor in MIDDLEWARES:
        if competitor.distribution == name:
            competitor.add_to(app, False)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    threading.Thread(target=_obey, args=(server,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])
    print(json.dumps({} if audit is None else dataclasses.asdict(audit.stats())), flush=True)


def _obey(server: uvicorn.Server) -> None:
    for _ in sys.stdin:
        print(time.process_time(), flush=True)
    server.should_exit = True


if __name__ == "__main__":
    main()
