"""The command line in this process: what a user's shell would start, without starting Python anew.

What a process of its own changes, a terminal or bytes that are no text, is tested with one.
"""

import os
import sys
from dataclasses import dataclass

import pytest

from auditlog.cli import main


@dataclass(frozen=True)
class Result:
    """What a shell sees of a command."""

    returncode: int
    stdout: str
    stderr: str


class CommandLine:
    """Runs commands with only the settings that are given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capfd = capfd

    def __call__(self, *arguments: str, dsn: str | None = None, **environment: str) -> Result:
        self._capfd.readouterr()
        options = [] if dsn is None else ["--dsn", dsn]
        with self._monkeypatch.context() as here:
            for key in [key for key in os.environ if key.startswith("AUDITLOG_")]:
                here.delenv(key)
            for key, text in environment.items():
                here.setenv(key, text)
            here.setattr(sys, "argv", ["auditlog", *arguments, *options])
            code = _code_of_main()
        stdout, stderr = self._capfd.readouterr()
        return Result(code, stdout, stderr)


def _code_of_main() -> int:
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    raise AssertionError("it always ends by an exit code")
