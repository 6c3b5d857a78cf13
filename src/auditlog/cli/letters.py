"""Where dead letters are: the table, or a file that took them when the table could not.

The two look the same to the commands. A letter is named by its identity, or by the beginning of it.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from psycopg import Connection

from auditlog.query.dead_letters import LetterSummary, find_letters, letters_named
from auditlog.settings import Settings
from auditlog.sink import replay as office
from auditlog.sink.dead_letters import DEAD_LETTERS_FOLDER, DeadLetter, DeadLetterFile
from auditlog.sink.replay import MAX_DISCARDED, Replayed


class Letters(Protocol):
    """Dead letters in one place."""

    def newest(self, limit: int, tenant: str | None) -> list[LetterSummary]:
        """Return the newest, the very newest last."""

    def identities(self) -> list[UUID]:
        """Return those of all, the oldest first."""

    def named(self, beginning: str) -> list[UUID]:
        """Return the identities that begin so; two are enough to know that it is not one."""

    def fetch(self, letter_id: UUID) -> DeadLetter | None:
        """Return a letter, or None if it is gone."""

    def replay(self, letter: DeadLetter, *, smallest: bool) -> Replayed:
        """Store its row after all."""

    def discard(self, letter_ids: Sequence[UUID], who: str, why: str) -> Iterator[int]:
        """Take letters away, and tell the trail; yield how many went in each transaction."""

    def close(self) -> None:
        """Finish what was begun."""


class Buried:
    """The letters of `logstore.dead_letters`."""

    def __init__(self, conn: Connection[Any], settings: Settings) -> None:
        self._conn = conn
        self._settings = settings

    def newest(self, limit: int, tenant: str | None) -> list[LetterSummary]:
        """See `Letters`."""
        return find_letters(self._conn, limit=limit, tenant=tenant)

    def identities(self) -> list[UUID]:
        """See `Letters`."""
        return office.letter_ids(self._conn)

    def named(self, beginning: str) -> list[UUID]:
        """See `Letters`."""
        return letters_named(self._conn, beginning)

    def fetch(self, letter_id: UUID) -> DeadLetter | None:
        """See `Letters`."""
        return office.fetch(self._conn, letter_id)

    def replay(self, letter: DeadLetter, *, smallest: bool) -> Replayed:
        """See `Letters`."""
        return office.replay(self._conn, letter, smallest=smallest)

    def discard(self, letter_ids: Sequence[UUID], who: str, why: str) -> Iterator[int]:
        """See `Letters`."""
        for some in _portions(letter_ids):
            yield office.discard(self._conn, some, who=who, why=why, settings=self._settings)

    def close(self) -> None:
        """See `Letters`."""
        self._conn.close()


class Filed:
    """The letters of a file."""

    def __init__(
        self, file: DeadLetterFile, connect: Callable[[], Connection[Any]], settings: Settings
    ) -> None:
        """Read the file.

        Args:
            file: The file.
            connect: Called when the database is needed, which it is not for looking.
            settings: Name the tenant of rows that name none.

        Raises:
            OSError: it is there and cannot be read.
        """
        letters, self.unreadable = file.letters()
        self._letters = {letter.letter_id: letter for letter in letters}
        self._file = file
        self._connect = connect
        self._settings = settings
        self._done: set[UUID] = set()

    def newest(self, limit: int, tenant: str | None) -> list[LetterSummary]:
        """See `Letters`."""
        named = None if tenant is None else tenant.encode()
        found = [
            letter
            for letter in reversed(self._letters.values())
            if named is None or letter.instance_id == named
        ]
        return [_summary(letter) for letter in islice(found, limit)][::-1]

    def identities(self) -> list[UUID]:
        """See `Letters`."""
        return list(self._letters)

    def named(self, beginning: str) -> list[UUID]:
        """See `Letters`."""
        return [known for known in self._letters if str(known).startswith(beginning)]

    def fetch(self, letter_id: UUID) -> DeadLetter | None:
        """See `Letters`."""
        return self._letters.get(letter_id)

    def replay(self, letter: DeadLetter, *, smallest: bool) -> Replayed:
        """See `Letters`."""
        replayed = office.replay(self._conn, letter, smallest=smallest, filed=True)
        if replayed.outcome is not office.Outcome.REFUSED:
            self._done.add(letter.letter_id)
        return replayed

    def discard(self, letter_ids: Sequence[UUID], who: str, why: str) -> Iterator[int]:
        """See `Letters`."""
        for some in _portions(letter_ids):
            letters = [self._letters[letter_id] for letter_id in some]
            office.tell_discarded(self._conn, letters, who=who, why=why, settings=self._settings)
            self._file.remove(set(some))
            yield len(some)

    def close(self) -> None:
        """Take out what was stored: once for all, since the file is written anew for it."""
        if self._done:
            self._file.remove(self._done)
        if "_conn" in self.__dict__:
            self._conn.close()

    @cached_property
    def _conn(self) -> Connection[Any]:
        return self._connect()


def file_of(file: Path | None, spool_dir: Path | None) -> DeadLetterFile | None:
    """Return the file that the options name, if they name one."""
    if file is not None:
        return DeadLetterFile(file.parent, name=file.name)
    return None if spool_dir is None else DeadLetterFile(spool_dir / DEAD_LETTERS_FOLDER)


def _portions(letter_ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    for start in range(0, len(letter_ids), MAX_DISCARDED):
        yield letter_ids[start : start + MAX_DISCARDED]


def _summary(letter: DeadLetter) -> LetterSummary:
    return LetterSummary(
        letter_id=letter.letter_id,
        died_at=letter.died_at,
        writer=letter.writer,
        table_name=letter.table_name,
        instance_id=letter.instance_id,
        log_id=letter.log_id,
        sqlstate=letter.sqlstate,
        reason=letter.reason,
        attempts=0,
        size=len(letter.row),
    )
