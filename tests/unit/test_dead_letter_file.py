"""The last resort: a file that other processes write to, and that may be damaged or full."""

import errno
import fcntl
import multiprocessing
import os
import stat
from pathlib import Path

import orjson
import pytest

from auditlog.sink.dead_letters import FILE_NAME, DeadLetterFile, letter_of
from poison import changed, good

HOSTILE = b'\0\xff\x1b[2J\n"{}\xe2\x80\xae'


def letters(count: int, seed: bytes = b"") -> list:
    return [
        letter_of(0, changed(0, row, message=HOSTILE + seed), "22021", "a reason", "host:1")
        for row in good(0, count)
    ]


def test_letters_come_back_as_they_were(tmp_path: Path) -> None:
    """In order, each once; nobody else may read them."""
    file = DeadLetterFile(tmp_path / "spool" / "dead-letters")
    written = [*letters(5), letter_of(2, b"", "", "a reason", "host:1")]
    for letter in (*written, *written):
        file.append(letter)
    assert file.letters() == (written, 0)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700


def test_what_is_not_there_has_no_letters(tmp_path: Path) -> None:
    assert DeadLetterFile(tmp_path).letters() == ([], 0)


def test_a_full_file_says_so_and_stays_whole(tmp_path: Path) -> None:
    """The caller counts what was not taken."""
    first, second = letters(2)
    DeadLetterFile(tmp_path).append(first)
    size = (tmp_path / FILE_NAME).stat().st_size
    file = DeadLetterFile(tmp_path, max_bytes=2 * size - 1)
    with pytest.raises(OSError, match="full") as full:
        file.append(second)
    assert full.value.errno == errno.EFBIG
    assert file.letters() == ([first], 0)
    DeadLetterFile(tmp_path, max_bytes=2 * size).append(second)
    assert file.letters() == ([first, second], 0)


def test_a_torn_line_costs_no_other(tmp_path: Path) -> None:
    """As a process leaves it that was killed in mid-write; damage within a line is known too."""
    first, second, third = letters(3)
    file = DeadLetterFile(tmp_path)
    file.append(first)
    file.append(second)
    data = file.path.read_bytes()
    file.path.write_bytes(data[:-40])
    file.append(third)
    assert file.letters() == ([first, third], 1)
    damaged = bytearray(file.path.read_bytes())
    damaged[damaged.index(b'"row":"') + 20] ^= 1
    file.path.write_bytes(bytes(damaged))
    assert file.letters() == ([third], 2)
    file.remove({first.letter_id, third.letter_id})
    assert file.letters() == ([], 2)


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"null", b'"x"', b"\xff", b'{"letter_id": 1}', b'{"letter_id": "x"}']
)
def test_lines_that_are_no_letters_are_counted(tmp_path: Path, line: bytes) -> None:
    file = DeadLetterFile(tmp_path)
    file.path.write_bytes(line + b"\n")
    assert file.letters() == ([], 1)
    file.remove(set())
    assert file.path.read_bytes() == line + b"\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("writer", 7),
        ("reason", None),
        ("sqlstate", ["22021"]),
        ("columns", [["instance_id"]]),
        ("columns", 7),
        ("died_at", 7),
        ("row", 7),
    ],
)
def test_letter_of_other_types_is_none(tmp_path: Path, name: str, value: object) -> None:
    """Anybody who can write into the folder can write one; the others are to be shown."""
    first, second = letters(2)
    file = DeadLetterFile(tmp_path)
    file.append(first)
    forged = orjson.loads(file.path.read_bytes()) | {name: value}
    file.path.write_bytes(orjson.dumps(forged) + b"\n")
    file.append(second)
    assert file.letters() == ([second], 1)


def test_file_stays_its_owners(tmp_path: Path) -> None:
    """Root looks after the letters, and the service goes on writing them."""
    first, second = letters(2)
    file = DeadLetterFile(tmp_path)
    file.append(first)
    file.append(second)
    user, group = (65534, 65534) if os.geteuid() == 0 else (-1, os.getgroups()[-1])
    os.chown(file.path, user, group)
    before = file.path.stat()
    file.remove({first.letter_id})
    after = file.path.stat()
    assert file.letters() == ([second], 0)
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert stat.S_IMODE(after.st_mode) == 0o600


def test_nothing_is_written_through_what_lies_in_the_way(tmp_path: Path) -> None:
    """The name under which the file is rewritten leads to another one, which is not ours."""
    first, second = letters(2)
    file = DeadLetterFile(tmp_path / "folder")
    file.append(first)
    file.append(second)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"not ours")
    file.path.with_suffix(".rewriting").hardlink_to(elsewhere)
    file.remove({first.letter_id})
    assert elsewhere.read_bytes() == b"not ours"
    assert file.letters() == ([second], 0)


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A letter does not go where somebody else has led it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    file = DeadLetterFile(tmp_path / "folder")
    file.path.parent.mkdir()
    file.path.symlink_to(elsewhere)
    with pytest.raises(OSError):  # noqa: PT011  # the number differs by system
        file.append(letters(1)[0])
    assert elsewhere.read_bytes() == b""


def test_letter_does_not_go_into_a_file_that_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process rewrites it between the opening and the locking."""
    first, second = letters(2)
    file = DeadLetterFile(tmp_path)
    file.append(first)
    lock = fcntl.flock

    def replace_and_lock(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        (tmp_path / "rewritten").write_bytes(file.path.read_bytes())
        (tmp_path / "rewritten").replace(file.path)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", replace_and_lock)
    file.append(second)
    assert file.letters() == ([first, second], 0)


def test_file_that_another_process_keeps_is_given_up(tmp_path: Path) -> None:
    """A stopped process does not stop the writer's loop for good."""
    first, second = letters(2)
    file = DeadLetterFile(tmp_path)
    file.append(first)
    with file.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            file.append(second)
    file.append(second)
    assert file.letters() == ([first, second], 0)


def _append(
    directory: Path, seed: int, count: int, ready: "multiprocessing.synchronize.Barrier"
) -> None:
    file = DeadLetterFile(directory)
    mine = letters(count, str(seed).encode())
    ready.wait(20)
    for letter in mine:
        file.append(letter)


def test_processes_write_while_another_rewrites(tmp_path: Path) -> None:
    """No letter is lost between the reading and the renaming."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(4)
    workers = [
        context.Process(target=_append, args=(tmp_path, seed, 200, ready)) for seed in range(3)
    ]
    for worker in workers:
        worker.start()
    file = DeadLetterFile(tmp_path)
    ready.wait(20)
    removed: set = set()
    while any(worker.is_alive() for worker in workers):
        if some := {letter.letter_id for letter in file.letters()[0][:3]}:
            file.remove(some)
            removed |= some
    for worker in workers:
        worker.join(20)
        assert worker.exitcode == 0
    left = {letter.letter_id for letter in file.letters()[0]}
    assert removed
    assert not removed & left
    assert len(removed | left) == 600


def test_nothing_stays_open(tmp_path: Path) -> None:
    """So a fork inherits no lock."""
    before = os.listdir("/proc/self/fd")
    file = DeadLetterFile(tmp_path)
    file.append(letters(1)[0])
    file.remove(set())
    assert len(os.listdir("/proc/self/fd")) == len(before)
