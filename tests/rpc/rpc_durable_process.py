"""A server in a process of its own, to be killed: `rpc_durable_process.py SERVER SPOOL_DIR`.

Its database is away, so what it has recorded is in the spool or nowhere. Prints where it listens.
"""

import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from rpc_handlers import Handlers
from rpc_interceptors import interceptor
from rpc_scene import every_shape
from rpc_servers import serving
from rpc_steps import drain, send

from auditlog import AuditLog, Settings

NOBODY = "postgresql://127.0.0.1:1/none?connect_timeout=1"


def main(server: str, spool_dir: str) -> None:
    settings = Settings(durability="spool", spool_dir=spool_dir)
    audit = AuditLog(NOBODY, settings=settings)
    methods = {method: each for method, (_, each) in every_shape(server, drain, send("a")).items()}
    with serving(server, [Handlers(methods)], [interceptor(server, audit)]) as running:
        sys.stdout.write(f"{running.target}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
