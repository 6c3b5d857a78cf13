"""When a writer asks for a partition, what it remembers of the answer, and what it tells."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import DiagnosticField

from auditlog.sink.database import partitions
from auditlog.sink.database.faults import Fault, bad_row, classify, note_remedy, remedy
from auditlog.sink.database.partitions import PAUSE_S, REMEMBERED_S, DateError, Ensuring, Runway
from auditlog.sink.dead_letters import DeadLetterFile
from auditlog.sink.queue.batch import Batch
from poison import changed, good
from writer_scene import Scene

Passing = Callable[[float], None]


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Passing:
    """Lets seconds pass, for the module that is tested."""
    now = [1000.0]
    monkeypatch.setattr(partitions.time, "monotonic", lambda: now[0])

    def passed(seconds: float) -> None:
        now[0] += seconds

    return passed


def of_year(year: int) -> bytes:
    days = (datetime(year, 1, 1, tzinfo=UTC) - datetime(2000, 1, 1, tzinfo=UTC)).days
    microseconds = days * 86_400_000_000
    return changed(0, good(0, 1)[0], log_date=microseconds.to_bytes(8, "big", signed=True))


@pytest.mark.parametrize("answer", ["detaching", "not_partitioned", "42501", "55P03", "", "later"])
def test_question_in_vain_is_not_repeated_at_once(passing: Passing, answer: str) -> None:
    """For no date: what stands in the way is not the row's."""
    ensuring = Ensuring()
    assert ensuring.pause() is None
    assert ensuring.answered(0, of_year(2026), answer) is None
    assert ensuring.pause()
    passing(PAUSE_S - 0.01)
    assert ensuring.pause()
    passing(0.02)
    assert ensuring.pause() is None


@pytest.mark.parametrize("answer", ["made", "already"])
def test_partition_that_is_there_is_a_reason_to_go_on(answer: str) -> None:
    """Unless a row of it is refused all the same."""
    ensuring = Ensuring()
    assert ensuring.answered(0, of_year(2026), answer) is None
    assert ensuring.pause() is None
    assert ensuring.refused_again() == ensuring.pause()


def test_refusal_holds_for_what_lies_further_away(passing: Passing) -> None:
    """Before what retention took and after what is too far; in one table, and for a time."""
    ensuring = Ensuring()
    assert ensuring.answered(0, of_year(1995), "retired") == "retired"
    assert ensuring.answered(0, of_year(2090), "too_far") == "too_far"
    assert ensuring.answered(0, of_year(2090), "22008") == "too_far"
    assert ensuring.pause() is None
    found = [ensuring.refusal(0, of_year(y)) for y in (1990, 1995, 1996, 2026, 2089, 2090, 2099)]
    assert found == ["retired", "retired", None, None, None, "too_far", "too_far"]
    assert ensuring.refusal(1, good(1, 1)[0]) is None
    passing(REMEMBERED_S + 0.01)
    assert ensuring.refusal(0, of_year(1990)) is None


def test_refused_dates_are_rows_to_blame() -> None:
    """Of several the first is named; the text says what may be done."""
    error = DateError(2, [7, 9], "retired")
    assert (classify(error), bad_row(error), error.sqlstate) == (Fault.DATA, (2, 7), "23514")
    assert "auditlog archive restore" in str(error)


def test_remedy_that_was_noted_goes_before_that_of_the_code() -> None:
    """Whoever tried knows better."""
    table_name = {DiagnosticField.TABLE_NAME: b"logs"}
    error: psycopg.Error = errors.CheckViolation("no partition", info=table_name)
    assert "create it" in remedy(error)
    note_remedy(error, "wait for the lock")
    assert remedy(error) == "wait for the lock"
    assert classify(error) is Fault.CONFIGURATION


def test_runway_shortens_by_itself(passing: Passing) -> None:
    """Until it is so old that maintenance may have run; a table that needs none has none."""
    runway = Runway()
    assert runway.seconds() == {}
    runway.note([("logs", 100.0), ("quota_logs", 9_000.0), ("execution_logs", None)])
    assert runway.seconds() == {"logs": 100.0, "quota_logs": 9_000.0}
    passing(101)
    assert runway.seconds() == {"logs": 0.0, "quota_logs": 8_899.0}
    passing(partitions.STALE_S)
    assert runway.seconds() == {}
    runway.note([])
    assert runway.seconds() == {}


def refused_for_dates(*rows: bytes) -> Callable[[Batch], Exception | None]:
    """As a target that has asked about each of them."""

    def fail(batch: Batch) -> Exception | None:
        numbers = [number for number, row in enumerate(batch.rows[0]) if row in rows]
        return DateError(0, numbers, "too_far") if numbers else None

    return fail


@pytest.mark.parametrize("place", ["table", "file", "nowhere"])
async def test_rows_of_wrong_dates_are_set_aside_together(tmp_path: Path, place: str) -> None:
    """All or none of them in each place, each counted; the others are written."""
    scene = Scene(batch_rows=6)
    rows = good(0, 6)
    wrong = rows[1:5:2]
    scene.desk.fail = refused_for_dates(*wrong)
    file = DeadLetterFile(tmp_path)
    if place == "table":
        scene.desk.grave_error = None
    elif place == "file":
        scene.isolate_in(file)
    async with scene.running():
        scene.put(*rows)
    assert scene.desk.written == [row for row in rows if row not in wrong]
    assert [batch.size for batch in scene.desk.attempts] == [6, 4, 2]
    kept = [letter.row for letter in (*scene.desk.buried, *file.letters()[0])]
    assert kept == ([] if place == "nowhere" else wrong)
    stats = scene.buffer.snapshot()
    lost = {"rejected": 2} if place == "nowhere" else {}
    assert (stats.dead_lettered, stats.dropped_by_reason) == (0 if lost else 2, lost)
    assert (stats.submitted, stats.written, stats.pending) == (6, 4, 0)
