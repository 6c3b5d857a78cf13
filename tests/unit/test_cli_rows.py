"""How `auditlog tail` lays out rows."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from auditlog import LogRecord
from auditlog.cli.rows import table_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (
            LogRecord(NOON, event_type="order.refunded", aggregate_type="order", aggregate_id="42"),
            "order.refunded order 42",
        ),
        (LogRecord(NOON, message="the sentence"), "the sentence"),
        (LogRecord(NOON, request_url="/a", event_type="order.refunded"), "/a"),
        (LogRecord(NOON), "01-01 12:00:00"),
    ],
)
def test_row_without_a_request_says_what_it_is_about(record: LogRecord, shown: str) -> None:
    """Its event and target, or its sentence, in the place of the URL."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table_of([record]))
    (line,) = [line for line in capture.get().splitlines() if "12:00:00" in line]
    assert shown in line
    assert ("order.refunded" in line) is (shown.startswith("order"))


def test_a_row_cannot_steer_the_terminal() -> None:
    """A client chooses its URL, and with it an escape sequence that hides the rows of others."""
    hostile = LogRecord(request_url="/\x1b[2J\x9b1A", user_id="\x1b]0;title\x07", log_level=1)
    console = Console(width=120, file=io.StringIO(), force_terminal=False)
    console.print(table_of([hostile]))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert not set(shown) & {"\x1b", "\x9b", "\x07"}
    assert r"\x1b[2J\x9b1A" in shown
