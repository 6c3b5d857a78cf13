"""The judge can condemn: each verdict is brought about once, by hand, on a real trail."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_journal import Journal, Request, read_journal
from fault_judge import Verdict, judge
from fault_postgres import Database, Postgres
from fault_scene import Scene, conclude, reconcile_objects, requests_of, staged, verdict_of
from fault_trail import Gap, Row, Trail, read_trail


@pytest.fixture(scope="module")
def scene(postgres: Postgres) -> Iterator[Scene]:
    """A trial without a fault, which is over."""
    with staged(postgres, "memory", seed=7) as scene:
        assert conclude(scene).good
        yield scene


def test_trial_without_a_fault_is_exact(scene: Scene) -> None:
    """The journal and the table have the same requests."""
    verdict = verdict_of(scene)
    assert verdict.sent == verdict.acknowledged == verdict.stored >= 30
    assert verdict == Verdict(verdict.sent, verdict.sent, 0, verdict.sent)


def maintain(database: Database, statement: str) -> None:
    database.execute(f"BEGIN; SET LOCAL auditlog.maintenance = 'on'; {statement}; COMMIT")


SAVED = "CREATE TABLE saved AS SELECT * FROM logstore.logs WHERE event_type IS NULL LIMIT 3"
BACK = "INSERT INTO logstore.logs SELECT * FROM saved; DROP TABLE saved"


def test_deleted_row_is_missing(scene: Scene) -> None:
    database = scene.database
    database.execute(SAVED)
    maintain(database, "DELETE FROM logstore.logs WHERE log_id IN (SELECT log_id FROM saved)")
    verdict = verdict_of(scene)
    assert (len(verdict.missing), verdict.unexplained, verdict.good) == (3, 3, False)
    database.execute(BACK)
    assert verdict_of(scene).good


def test_row_with_another_identity_is_twice(scene: Scene) -> None:
    database = scene.database
    database.execute(SAVED)
    database.execute("UPDATE saved SET log_id = 'again-' || log_id")
    database.execute("INSERT INTO logstore.logs SELECT * FROM saved")
    verdict = verdict_of(scene)
    assert (len(verdict.twice), verdict.good) == (3, False)
    maintain(database, "DELETE FROM logstore.logs WHERE log_id LIKE 'again-%'")
    database.execute("DROP TABLE saved")
    assert verdict_of(scene).good


def test_row_that_nobody_sent_is_invented(scene: Scene) -> None:
    database = scene.database
    database.execute(
        "INSERT INTO logstore.logs (instance_id, log_id, request_url)"
        " VALUES ('default', 'x', '/r/s7-999999?')"
    )
    verdict = verdict_of(scene)
    assert (verdict.invented, verdict.good) == (("s7-999999",), False)
    maintain(database, "DELETE FROM logstore.logs WHERE log_id = 'x'")


def test_answer_that_the_journal_lost_is_not_acknowledged(scene: Scene, tmp_path: Path) -> None:
    """A dropped acknowledgement makes nothing of its row; a dropped request makes it invented."""
    lines = scene.client.journal.path.read_text().splitlines(keepends=True)
    answered = [line for line in lines if line.startswith("answered")]
    name = answered[0].split("\t")[1]
    trail = read_trail(scene.database.dsn)
    changed = tmp_path / "journal"
    changed.write_text("".join(line for line in lines if line != answered[0]))
    verdict = judge(read_journal(changed), trail, "memory")
    assert (verdict.sent - verdict.acknowledged, verdict.good) == (1, True)
    changed.write_text("".join(line for line in lines if f"\t{name}\t" not in line))
    assert judge(read_journal(changed), trail, "memory").invented == (name,)


def test_journal_survives_a_torn_line(tmp_path: Path) -> None:
    """As a killed client leaves it."""
    journal = Journal(tmp_path / "journal")
    journal.sent("a-1")
    journal.answered("a-1", 200)
    journal.sent("a-2")
    journal.failed("a-2", "EOFError")
    journal.close()
    with journal.path.open("a") as file:
        file.write("sent\ta-3\t17")
    requests = read_journal(journal.path)
    assert [(each.identity, each.acknowledged) for each in requests.values()] == [
        ("a-1", True),
        ("a-2", False),
    ]


NOW = time.time()


def requests(count: int, **changes: object) -> dict[str, Request]:
    known = {"sent_at": NOW, "answered_at": NOW + 1, "status": 200} | changes
    return {f"a-{n}": Request(f"a-{n}", **known) for n in range(count)}  # type: ignore[arg-type]


def whole(count: int, *stages: str | None) -> list[Row]:
    return [Row(f"a-{n}", stage) for n in range(count) for stage in stages or (None,)]


def test_gap_explains_as_many_as_it_counts() -> None:
    sent = requests(10)
    trail = Trail(whole(7), [Gap("overflow", 3)])
    assert judge(sent, trail, "memory").good
    assert judge(sent, Trail(whole(6), trail.gaps), "memory").unexplained == 1
    assert judge(sent, Trail(whole(8), trail.gaps), "memory").exaggerated == 1
    told = judge(sent, Trail(whole(7)), "memory", told={"shutdown": 3})
    assert (told.good, told.gaps) == (True, {"shutdown": 3})


def test_dead_letter_explains_its_own_request_only() -> None:
    verdict = judge(requests(3), Trail(whole(1), dead=["a-1"]), "spool")
    assert (verdict.dead, verdict.missing, verdict.unexplained) == (1, ("a-2",), 1)


def test_kill_explains_only_what_memory_may_have_held() -> None:
    """Answered just before it, and in the mode that promises no more."""
    sent = requests(3)
    trail = Trail(whole(1))
    assert judge(sent, trail, "memory", kills=[NOW + 2]).good
    for kills, mode in (([NOW + 2], "spool"), ([NOW + 60], "memory"), ([NOW - 1], "memory")):
        assert judge(sent, trail, mode, kills=kills).unexplained == 2


def test_commit_needs_both_rows() -> None:
    sent = requests(3)
    both = whole(3, "received", "complete")
    assert judge(sent, Trail(both), "commit").good
    assert judge(sent, Trail(both[1:]), "commit").unannounced == ("a-0",)
    verdict = judge(sent, Trail(both[:-1]), "commit")
    assert (verdict.missing, verdict.orphans) == (("a-2",), ("a-2",))


def test_orphan_is_evidence_of_a_kill_and_of_nothing_else() -> None:
    sent = requests(1, answered_at=None, status=None)
    trail = Trail(whole(1, "received"))
    assert judge(sent, trail, "commit").orphans == ("a-0",)
    assert judge(sent, trail, "commit", kills=[NOW + 1]).good
    assert judge(sent, trail, "commit", kills=[NOW - 1]).orphans == ("a-0",)
    assert judge(requests(1), trail, "commit", kills=[NOW + 2]).orphans == ("a-0",)


def test_refused_request_is_not_acknowledged() -> None:
    verdict = judge(requests(2, status=503), Trail(), "commit")
    assert (verdict.acknowledged, verdict.refused, verdict.good) == (0, 2, True)


@pytest.mark.parametrize(
    "change",
    [
        lambda verdict: dataclasses.replace(verdict, missing=("a",)),
        lambda verdict: dataclasses.replace(verdict, twice=("a",)),
        lambda verdict: dataclasses.replace(verdict, invented=("a",)),
        lambda verdict: dataclasses.replace(verdict, unannounced=("a",)),
        lambda verdict: dataclasses.replace(verdict, orphans=("a",)),
        lambda verdict: dataclasses.replace(verdict, exaggerated=1),
    ],
)
def test_every_charge_condemns(change: Callable[[Verdict], Verdict]) -> None:
    assert not change(Verdict(1, 1, 0, 1)).good


def test_reconcile_agrees(scene: Scene) -> None:
    """With the judge, on a whole trail and on one that lacks a row."""
    assert reconcile_objects(scene) == ""
    database = scene.database
    database.execute(SAVED)
    maintain(database, "DELETE FROM logstore.logs WHERE log_id IN (SELECT log_id FROM saved)")
    assert "Unaccounted for: 3 records" in reconcile_objects(scene)
    database.execute(BACK)


def test_requests_are_read_from_the_disk(scene: Scene) -> None:
    assert len(requests_of(scene)) == verdict_of(scene).sent
