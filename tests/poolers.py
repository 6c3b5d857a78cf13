"""A pgbouncer in transaction mode on loopback, in front of a server of the tests."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

# Debian keeps daemons where a user's PATH does not look.
SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
NOT_FOUND = "pgbouncer is not installed: apt-get install pgbouncer"

CONFIGURATION = """\
[databases]
* = {server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
log_stats = 0
"""


@contextmanager
def running_pgbouncer(admin_dsn: str) -> Iterator[Callable[[str], str]]:
    """Start one in front of the server and give the function that leads a DSN through it."""
    program = shutil.which("pgbouncer", path=SEARCH_PATH)
    if program is None:
        # In CI a missing tool is a mistake; elsewhere a contributor may do without.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(NOT_FOUND)
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="auditlog-pooler-") as folder:
        configuration = Path(folder, "pgbouncer.ini")
        configuration.write_text(CONFIGURATION.format(server=_server_line(admin_dsn), port=port))
        with subprocess.Popen(
            [program, *_user_option(), str(configuration)], stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                _wait_until_up(process)
                yield lambda dsn: make_conninfo(
                    host="127.0.0.1", port=port, dbname=conninfo_to_dict(dsn)["dbname"], user="any"
                )
            finally:
                process.terminate()


def _server_line(admin_dsn: str) -> str:
    parameters = conninfo_to_dict(admin_dsn)
    known = ("host", "port", "user", "password")
    return " ".join(f"{name}='{parameters[name]}'" for name in known if name in parameters)


def _user_option() -> list[str]:
    """Root may not run it; the embedded server's socket is for its own system user."""
    if os.geteuid() != 0:
        return []
    users = {entry.pw_name for entry in pwd.getpwall()}
    return ["--user", "pgserver" if "pgserver" in users else "nobody"]


def _wait_until_up(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "process up" in line:
            return
    pytest.fail("pgbouncer did not start: " + "".join(lines), pytrace=False)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
