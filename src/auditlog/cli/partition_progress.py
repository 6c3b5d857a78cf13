"""What maintenance is at, on a terminal; nothing where nobody looks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from auditlog.cli.output import plain, stderr, stdout
from auditlog.cli.partitions_report import line_of, what
from auditlog.partitions.model import Operation, Outcome


@dataclass(slots=True)
class Steps:
    """Hears of each step, when it begins, while it goes on, and when it has ended."""

    progress: Progress
    task: TaskID

    def begun(self, operation: Operation) -> None:
        """Show the step."""
        text = escape(plain(f"{operation.table}: {what(operation)}"))
        self.progress.reset(self.task, description=text, total=None)
        self.progress.refresh()

    def archived(self, rows: int, total: int | None) -> None:
        """Show how far the archive of a partition is."""
        self.progress.update(self.task, completed=rows, total=total)

    def ended(self, outcome: Outcome) -> None:
        """Leave a line of it, unless the report comes to the same terminal."""
        if self.progress.console.is_terminal and not stdout().is_terminal:
            self.progress.console.print(Text(plain(line_of(outcome))), soft_wrap=True)


@contextmanager
def shown_steps() -> Iterator[Steps]:
    """Show steps on stderr, if somebody looks."""
    console = stderr()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield Steps(progress, progress.add_task("looking at the catalog", total=None))
