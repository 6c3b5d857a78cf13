"""What the tests of log lines look at: the one record that a line became, and its metadata."""

from typing import Any

from auditlog import LogRecord
from auditlog.testing import MemorySink


def only(sink: MemorySink) -> LogRecord:
    """The only record, of which nothing was lost."""
    assert sink.errors == []
    (record,) = sink.records
    assert isinstance(record, LogRecord)
    return record


def metadata(sink: MemorySink) -> dict[str, Any]:
    return dict(only(sink).metadata or {})
