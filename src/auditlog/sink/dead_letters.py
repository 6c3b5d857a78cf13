"""Rows that no table takes: what is kept of them, in `logstore.dead_letters` or in a file.

A letter is the tuple as it was, and why it died, in our own words: the server's quote the row. The
file is the last resort, for when the database takes no letter either: lines of JSON in a folder of
the spool's, in the kernel when `append` returns, bounded. It is read by `auditlog dead-letters`.
"""

import base64
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import orjson

from auditlog.sink.encoding.reduced import is_tuple
from auditlog.sink.encoding.tuples import fields
from auditlog.tables import DEAD_LETTERS, TABLES

DEAD_LETTERS_FOLDER = "dead-letters"
"""Within `spool_dir`."""
FILE_NAME = "letters.jsonl"
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_WAIT_S = 1.0
"""For another process that appends or rewrites the file: 64 MiB took 0.2 s (2026-11-28)."""
_POLL_S = 0.005

COLUMNS: LiteralString = (
    "letter_id, died_at, writer, table_name, columns, row, instance_id, log_id, sqlstate, reason"
)
# No conflict target: naming a column would take the right to SELECT.
BURY: LiteralString = f"""
    INSERT INTO {DEAD_LETTERS.qualified_name} ({COLUMNS})
    VALUES (%s, %s, %s, %s, %s, %b, %b, %b, %s, %s) ON CONFLICT DO NOTHING
"""  # noqa: S608  # our own constants


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A row that could not be stored, and what is known of it."""

    letter_id: UUID
    """Made of table and row: the same row buried twice is one letter."""
    died_at: datetime
    writer: str
    table_name: str
    columns: tuple[str, ...]
    """Their names, in the order of the tuple."""
    row: bytes
    instance_id: bytes | None
    """As it is in the tuple, where that has the form of one; it need not be a text."""
    log_id: bytes | None
    sqlstate: str
    reason: str

    @property
    def parameters(self) -> tuple[Any, ...]:
        """The parameters of `BURY`."""
        return (
            self.letter_id,
            self.died_at,
            self.writer,
            self.table_name,
            list(self.columns),
            self.row,
            self.instance_id,
            self.log_id,
            self.sqlstate,
            self.reason,
        )


def letter_of(table: int, row: bytes, sqlstate: str, reason: str, writer: str) -> DeadLetter:
    """Write the letter of a row that was refused.

    Args:
        table: Index into `TABLES`.
        row: The tuple as it was recorded, not what was left of it.
        sqlstate: Why it was refused; empty where no code says that.
        reason: The same in words; nothing out of the row.
        writer: The process that tried.
    """
    described = TABLES[table]
    identity = dict.fromkeys(described.primary_key)
    if is_tuple(table, row):
        values = dict(zip(described.column_names, fields(row), strict=True))
        identity = {name: values[name] for name in identity}
    return DeadLetter(
        letter_id=letter_id(described.name, row),
        died_at=datetime.now(UTC),
        writer=writer,
        table_name=described.name,
        columns=described.column_names,
        row=row,
        sqlstate=sqlstate,
        reason=reason,
        **identity,
    )


def letter_id(table_name: str, row: bytes) -> UUID:
    """Return the identity that a row has as a letter."""
    return UUID(bytes=hashlib.sha256(table_name.encode() + b"\0" + row).digest()[:16])


class DeadLetterFile:
    """Letters in a file that all processes of a machine share; safe from any thread.

    Held open for no longer than an operation takes, so nothing of it is inherited by a fork.
    """

    def __init__(
        self, directory: Path, *, name: str = FILE_NAME, max_bytes: int = MAX_FILE_BYTES
    ) -> None:
        """Keep the name; the folder is made with the first letter.

        Args:
            directory: `DEAD_LETTERS_FOLDER` of a spool.
            name: Of the file in it.
            max_bytes: Beyond that no letter is taken.
        """
        self.path = directory / name
        self._max_bytes = max_bytes

    def append(self, *letters: DeadLetter) -> None:
        """Keep letters; blocks until the disk has them.

        Raises:
            OSError: none of them could be kept, as when the file or the disk is full.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        line = b"".join(map(_line, letters))
        with self._locked(os.O_RDWR | os.O_CREAT | os.O_APPEND) as file:
            size = os.fstat(file).st_size
            if size + len(line) > self._max_bytes:
                raise OSError(errno.EFBIG, "the file of dead letters is full")
            # What a process that was killed in mid-line has left is a line of its own.
            if size and os.pread(file, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(file, line) != len(line):
                os.ftruncate(file, size)
                raise OSError(errno.ENOSPC, "the disk is full")
            # The spool, which may have promised to outlive the machine, lets go of the row now.
            os.fdatasync(file)

    def letters(self) -> tuple[list[DeadLetter], int]:
        """Return the letters, the oldest first, each once; and how many lines cannot be read.

        Raises:
            OSError: the file is there and cannot be read.
        """
        found: dict[UUID, DeadLetter] = {}
        unreadable = 0
        for line in self._lines():
            letter = _letter(line)
            if letter is None:
                unreadable += 1
            else:
                found.setdefault(letter.letter_id, letter)
        return list(found.values()), unreadable

    def remove(self, letter_ids: set[UUID]) -> None:
        """Take letters out; what cannot be read stays. Another process may append meanwhile.

        Raises:
            OSError: the file could not be written anew; it is as it was.
        """
        with self._locked(os.O_RDWR) as file:
            rest = [line for line in self._lines() if not _is_of(line, letter_ids)]
            replacement = self.path.with_suffix(".rewriting")
            _write(replacement, b"".join(line + b"\n" for line in rest), os.fstat(file))
            replacement.replace(self.path)

    def _lines(self) -> list[bytes]:
        try:
            return [line for line in self.path.read_bytes().split(b"\n") if line]
        except FileNotFoundError:
            return []

    @contextmanager
    def _locked(self, flags: int) -> Iterator[int]:
        """Open the file that has the name by now, for one process at a time.

        Raises:
            OSError: another one has it for longer than rewriting it takes.
        """
        patience_ends = time.monotonic() + MAX_WAIT_S
        while True:
            file = os.open(self.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                if _lock(file, patience_ends) and _is_same(file, self.path):
                    yield file
                    return
            finally:
                os.close(file)


def _lock(file: int, patience_ends: float) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if time.monotonic() > patience_ends:
            raise
        time.sleep(_POLL_S)
        return False
    return True


def _is_same(file: int, path: Path) -> bool:
    """Tell whether the name still leads to the file; `remove` gives it to another."""
    opened = os.fstat(file)
    try:
        named = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)


def _write(path: Path, data: bytes, owner: os.stat_result) -> None:
    """Write a file anew, down to the disk: it takes the place of the only copy.

    It stays the service's, though root may be the one who looks after the letters.
    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, 0o600), "wb") as file:
        os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _line(letter: DeadLetter) -> bytes:
    document = {
        "letter_id": str(letter.letter_id),
        "died_at": letter.died_at.isoformat(timespec="microseconds"),
        "writer": letter.writer,
        "table_name": letter.table_name,
        "columns": letter.columns,
        "row": _base64(letter.row),
        "instance_id": _base64(letter.instance_id),
        "log_id": _base64(letter.log_id),
        "sqlstate": letter.sqlstate,
        "reason": letter.reason,
    }
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _letter(line: bytes) -> DeadLetter | None:
    """Read a line back; None if it is damaged, which the identity tells."""
    try:
        document = orjson.loads(line)
        letter = DeadLetter(
            letter_id=UUID(document["letter_id"]),
            died_at=datetime.fromisoformat(document["died_at"]).astimezone(UTC),
            writer=_text(document["writer"]),
            table_name=_text(document["table_name"]),
            columns=tuple(map(_text, document["columns"])),
            row=_bytes(document["row"]) or b"",
            instance_id=_bytes(document["instance_id"]),
            log_id=_bytes(document["log_id"]),
            sqlstate=_text(document["sqlstate"]),
            reason=_text(document["reason"]),
        )
        return letter if letter.letter_id == letter_id(letter.table_name, letter.row) else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _is_of(line: bytes, letter_ids: set[UUID]) -> bool:
    letter = _letter(line)
    return letter is not None and letter.letter_id in letter_ids


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
