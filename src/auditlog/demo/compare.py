"""What was sent against what is stored, request by request; joined by the request's id."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that went out, as its client saw it."""

    request_id: str
    scenario: str
    status: int | None
    """None: the client did not stay for the answer."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result; every tuple is empty when the trail tells the truth."""

    sent: int
    stored: int
    missing: tuple[Sent, ...] = ()
    """Sent, and not stored."""
    repeated: tuple[str, ...] = ()
    """Stored more than once."""
    unknown: tuple[str, ...] = ()
    """Stored, and never sent."""
    differing: tuple[tuple[Sent, int | None], ...] = ()
    """Stored with another status than the client saw."""

    @property
    def exact(self) -> bool:
        """Whether every request has exactly its row."""
        return not (self.missing or self.repeated or self.unknown or self.differing)


def compare(sent: Iterable[Sent], stored: Iterable[tuple[str, int | None]]) -> Comparison:
    """Match each request with the rows, `(request id, status)`, that carry its id."""
    requests = {request.request_id: request for request in sent}
    rows = list(stored)
    counts = Counter(request_id for request_id, _ in rows)
    return Comparison(
        sent=len(requests),
        stored=len(rows),
        missing=tuple(request for key, request in requests.items() if key not in counts),
        repeated=tuple(key for key, count in counts.items() if count > 1),
        unknown=tuple(key for key in counts if key not in requests),
        differing=tuple(
            (requests[key], status)
            for key, status in rows
            if key in requests and requests[key].status not in (None, status)
        ),
    )


def read_rows(conn: psycopg.Connection[Any], run: str) -> list[tuple[str, int | None]]:
    """Return request id and status of every row that a run has left."""
    return conn.execute(
        "SELECT metadata ->> 'audit.request_id', response_status FROM logstore.logs"
        " WHERE starts_with(metadata ->> 'audit.request_id', %s)",
        [f"{run}-"],
    ).fetchall()
