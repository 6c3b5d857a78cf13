"""The server under load, in a process of its own: one uvicorn worker, bare or audited.

    python -m benchmarks.serve bare|audited

Prints its port, serves until its standard input ends, drains, and prints the log's counters.
The log goes where `AUDITLOG_DSN` says, with default settings.
"""

import dataclasses
import json
import socket
import sys
import threading

import uvicorn

from auditlog import AuditLog, AuditMiddleware
from benchmarks.workload import application


def main() -> None:
    """Serve."""
    app = application()
    audit = AuditLog() if sys.argv[1] == "audited" else None
    if audit is not None:
        app.add_middleware(AuditMiddleware, audit=audit)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(app, access_log=False, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.run(sockets=[listener])
    print(json.dumps({} if audit is None else dataclasses.asdict(audit.stats())), flush=True)


def _stop_at_end_of_input(server: uvicorn.Server) -> None:
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main()
