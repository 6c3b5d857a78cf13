"""`auditlog dead-letters`: what it prints, what it changes, and the codes it exits with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_cli import auditlog

from auditlog.cli.failures import Exit
from auditlog.sink.dead_letters import (
    DEAD_LETTERS_FOLDER,
    DeadLetter,
    DeadLetterFile,
    letter_of,
)
from poison import changed, good, target_of
from trail import batches, execute, fetch, ledger_agrees, rows

SECRET = "\x1b[31mhunter2\u202e"


def letter(message: str = SECRET, **values: bytes | None) -> DeadLetter:
    row = changed(0, good(0, 1)[0], **{"message": message.encode(), **values})
    return letter_of(0, row, "22021", "CharacterNotInRepertoire (SQLSTATE 22021)", "host:1")


@pytest.fixture
async def buried(any_dsn: str) -> list[DeadLetter]:
    """Three letters of two tenants in `any_dsn`, the last of which is refused still."""
    letters = [letter(), letter(instance_id=b"b"), letter(metadata=b'\x01{"a": "\\u0000"}')]
    async with target_of(any_dsn) as target:
        await target.bury(letters)
    return letters


@pytest.fixture
def filed(tmp_path: Path) -> tuple[Path, list[DeadLetter]]:
    """A spool folder with two letters and a line that is none."""
    file = DeadLetterFile(tmp_path / DEAD_LETTERS_FOLDER)
    letters = [letter(), letter(metadata=b'\x01{"a": "\\u0000"}')]
    for each in letters:
        file.append(each)
    with file.path.open("ab") as raw:
        raw.write(b"no letter\n")
    return tmp_path, letters


def left(dsn: str) -> int:
    (count,) = fetch(dsn, "SELECT count(*) FROM logstore.dead_letters")
    return int(count)


def gaps(dsn: str) -> list[dict[str, Any]]:
    return [row for row in rows(dsn) if row["event_type"] == "audit.gap"]


def test_list_tells_of_letters_and_not_what_is_in_them(
    any_dsn: str, buried: list[DeadLetter]
) -> None:
    """Exit 1, as something is not well; as a table and as JSON, for one tenant and for all."""
    text = auditlog("dead-letters", "list", "--dsn", any_dsn)
    assert text.returncode == Exit.NOT_WELL
    assert [str(each.letter_id)[:13] in text.stdout for each in buried] == [True] * 3
    lines = auditlog("dead-letters", "list", "--json", "--dsn", any_dsn).stdout.splitlines()
    assert [json.loads(line)["letter_id"] for line in lines] == [
        str(each.letter_id) for each in buried
    ]
    assert json.loads(lines[1])["instance_id"] == "b"
    one = auditlog("dead-letters", "list", "--tenant", "b", "--json", "--dsn", any_dsn)
    assert one.stdout.splitlines() == [lines[1]]
    few = auditlog("dead-letters", "list", "-n", "1", "--dsn", any_dsn)
    assert "There are more than these 1" in few.stderr
    for output in (text, one, few):
        assert "hunter2" not in output.stdout + output.stderr


def test_no_letters_is_well(any_dsn: str, tmp_path: Path) -> None:
    result = auditlog("dead-letters", "list", "--dsn", any_dsn)
    assert (result.returncode, result.stdout) == (Exit.OK, "")
    assert "no dead letters" in result.stderr
    result = auditlog("dead-letters", "list", "--spool-dir", str(tmp_path))
    assert (result.returncode, result.stdout) == (Exit.OK, "")


def test_show_decodes_what_it_can_and_escapes_the_rest(
    any_dsn: str, buried: list[DeadLetter]
) -> None:
    """It shows the content, for that is what it is for; but no terminal obeys it."""
    name = str(buried[0].letter_id)
    result = auditlog("dead-letters", "show", name[:13].upper(), "--dsn", any_dsn)
    assert result.returncode == Exit.OK
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if line)
    assert lines["message"] == r"\x1b[31mhunter2\u202e"
    assert (lines["user_id"], lines["message"].isascii()) == ("000000", True)
    assert lines["event_type"] == "NULL"
    assert lines["sqlstate"] == "22021"
    document = json.loads(auditlog("dead-letters", "show", name, "--json", "--dsn", any_dsn).stdout)
    assert {field["name"]: field["value"] for field in document["fields"]}["log_level"] == "1"


def test_replay_stores_what_is_mended_and_keeps_the_rest(
    any_dsn: str, buried: list[DeadLetter]
) -> None:
    """Exit 1 while one is refused; in its smallest form it is not."""
    result = auditlog("dead-letters", "replay", "--all", "--dsn", any_dsn)
    assert (result.returncode, result.stdout.split("\n")[0]) == (Exit.NOT_WELL, "stored 2")
    assert f"{buried[2].letter_id}: refused again, SQLSTATE 22P05" in result.stderr
    assert (len(rows(any_dsn)), left(any_dsn)) == (2, 1)
    again = auditlog("dead-letters", "replay", "--all", "--reduced", "--json", "--dsn", any_dsn)
    assert again.returncode == Exit.OK
    assert json.loads(again.stdout) == {"stored": 1, "there": 0, "gone": 0, "refused": 0}
    assert (len(rows(any_dsn)), left(any_dsn)) == (3, 0)
    assert {row["log_id"] for row in rows(any_dsn)} == {
        (each.log_id or b"").decode() for each in buried
    }
    assert ledger_agrees(any_dsn)


def test_discard_leaves_a_row_with_the_reason(any_dsn: str, buried: list[DeadLetter]) -> None:
    """One letter by its name, then all; the reason may not be left out."""
    for missing in ((), ("--reason", " ")):
        result = auditlog("dead-letters", "discard", "--all", *missing, "--dsn", any_dsn)
        assert result.returncode == Exit.USAGE
    name = str(buried[1].letter_id)
    result = auditlog("dead-letters", "discard", name, "--reason", "a test", "--dsn", any_dsn)
    assert (result.returncode, result.stdout) == (Exit.OK, "discarded 1\n")
    (gap,) = gaps(any_dsn)
    assert (gap["instance_id"], gap["metadata"]["audit.gap.why"]) == ("b", "a test")
    assert "@" in gap["user_id"]
    auditlog("dead-letters", "discard", "--all", "--reason", "a test", "--dsn", any_dsn)
    assert sum(gap["metadata"]["audit.gap.count"] for gap in gaps(any_dsn)) == 3
    assert left(any_dsn) == 0
    assert ledger_agrees(any_dsn)


def test_forged_letter_does_not_keep_the_others(any_dsn: str, tmp_path: Path) -> None:
    """Anybody who can write into the folder can write one that names a tenant and has no row."""
    file = DeadLetterFile(tmp_path / DEAD_LETTERS_FOLDER)
    forged = [letter_of(0, row, "", "a reason", "host:1") for row in (b"", b"\0\x13\0\0\0")]
    for each in (letter(), *(replace(each, instance_id=b"b") for each in forged)):
        file.append(each)
    arguments = ("--all", "--reason", "forged", "--spool-dir", str(tmp_path), "--dsn", any_dsn)
    done = auditlog("dead-letters", "discard", *arguments)
    assert (done.returncode, done.stdout) == (Exit.OK, "discarded 3\n"), done.stderr
    assert sorted(row["metadata"]["audit.gap.count"] for row in gaps(any_dsn)) == [1, 2]


def test_letter_that_is_named_twice_is_one(
    any_dsn: str, filed: tuple[Path, list[DeadLetter]]
) -> None:
    """The trail is not told of two."""
    name = str(filed[1][0].letter_id)
    arguments = (name, name, "--reason", "x", "--spool-dir", str(filed[0]), "--dsn", any_dsn)
    assert auditlog("dead-letters", "discard", *arguments).stdout == "discarded 1\n"
    (gap,) = gaps(any_dsn)
    assert gap["metadata"]["audit.gap.count"] == 1


def test_letters_are_named_without_doubt(any_dsn: str, buried: list[DeadLetter]) -> None:
    """No letter, several, none named: usage, and nothing is changed."""
    for arguments in (
        ["show", "zzz"],
        ["show", ""],
        ["show", "%"],
        ["replay"],
        ["replay", "--all", str(buried[0].letter_id)],
        ["discard", "--reason", "x"],
        ["discard", "zzz", "--reason", "x"],
    ):
        result = auditlog("dead-letters", *arguments, "--dsn", any_dsn)
        assert result.returncode == Exit.USAGE, arguments
    assert (left(any_dsn), rows(any_dsn)) == (3, [])


def test_letters_of_a_file_look_the_same(
    any_dsn: str, filed: tuple[Path, list[DeadLetter]]
) -> None:
    """By the folder of the spool or by the file; what cannot be read is told of, and stays."""
    folder, letters = filed
    path = folder / DEAD_LETTERS_FOLDER / "letters.jsonl"
    for option in (["--spool-dir", str(folder)], ["--file", str(path)]):
        listed = auditlog("dead-letters", "list", "--json", *option)
        assert listed.returncode == Exit.NOT_WELL
        assert [json.loads(line)["letter_id"] for line in listed.stdout.splitlines()] == [
            str(each.letter_id) for each in letters
        ]
        assert "cannot be read: 1." in listed.stderr
    shown = auditlog("dead-letters", "show", str(letters[0].letter_id), "--file", str(path))
    assert "hunter2" in shown.stdout
    store = ["--spool-dir", str(folder), "--dsn", any_dsn]
    result = auditlog("dead-letters", "replay", "--all", *store)
    assert (result.returncode, result.stdout.split("\n")[0]) == (Exit.NOT_WELL, "stored 1")
    assert DeadLetterFile(path.parent).letters() == (letters[1:], 1)
    result = auditlog("dead-letters", "discard", "--all", "--reason", "a test", *store)
    assert result.stdout == "discarded 1\n"
    assert DeadLetterFile(path.parent).letters() == ([], 1)
    assert len(gaps(any_dsn)) == 1
    assert ledger_agrees(any_dsn)


def test_replay_of_a_file_without_a_database_changes_nothing(
    filed: tuple[Path, list[DeadLetter]],
) -> None:
    folder, letters = filed
    unreachable = "postgresql://reader@127.0.0.1:1/logs"
    result = auditlog(
        "dead-letters", "replay", "--all", "--spool-dir", str(folder), "--dsn", unreachable
    )
    assert result.returncode == Exit.NO_DATABASE
    assert DeadLetterFile(folder / DEAD_LETTERS_FOLDER).letters()[0] == letters


def test_schema_that_is_older_is_told_with_the_remedy(any_dsn: str) -> None:
    execute(any_dsn, "DROP TABLE logstore.dead_letters")
    result = auditlog("dead-letters", "list", "--dsn", any_dsn)
    assert result.returncode == Exit.NOT_WELL
    assert "auditlog migrate" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert batches(any_dsn) == []
