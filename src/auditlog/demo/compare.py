"""What was sent against what is stored, request by request; joined by the request's id."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg

from auditlog.records import Protocol

HTTP, GRPC, GRAPHQL = Protocol.HTTP, Protocol.GRPC, Protocol.GRAPHQL


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that went out, as its client saw it."""

    request_id: str
    scenario: str
    status: int | None
    """None: the client did not stay for the answer."""
    due: tuple[Protocol, ...] = (HTTP,)
    """The rows that it must leave: of a batch of operations, each has one."""


class Stored(NamedTuple):
    """A row."""

    request_id: str
    status: int | None
    protocol: int = HTTP


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result; every tuple is empty when the trail tells the truth."""

    sent: int
    """The rows that are due."""
    stored: int
    missing: tuple[Sent, ...] = ()
    """Sent, and not stored; once for each row that is not there."""
    repeated: tuple[str, ...] = ()
    """Stored once more than it should be."""
    unknown: tuple[str, ...] = ()
    """Stored, and never sent."""
    differing: tuple[tuple[Sent, int | None], ...] = ()
    """Stored with another status than the client saw."""
    protocols: tuple[tuple[Protocol, int, int], ...] = ()
    """Each protocol, with what was sent by it and what is stored."""

    @property
    def exact(self) -> bool:
        """Whether every request has exactly its rows."""
        return not (self.missing or self.repeated or self.unknown or self.differing)


def compare(sent: Iterable[Sent], stored: Iterable[Stored]) -> Comparison:
    """Match each request with the rows that carry its id."""
    requests = {request.request_id: request for request in sent}
    rows = list(stored)
    due = Counter(
        (key, int(protocol)) for key, request in requests.items() for protocol in request.due
    )
    found = Counter((row.request_id, row.protocol) for row in rows)
    too_many = [key for key, _ in (found - due).elements()]
    return Comparison(
        sent=due.total(),
        stored=len(rows),
        missing=tuple(requests[key] for key, _ in (due - found).elements()),
        repeated=tuple(key for key in too_many if key in requests),
        unknown=tuple(key for key in too_many if key not in requests),
        differing=tuple(
            (requests[row.request_id], row.status)
            for row in rows
            if row.request_id in requests
            and requests[row.request_id].status not in (None, row.status)
        ),
        protocols=tuple(
            (protocol, _count(due, protocol), _count(found, protocol))
            for protocol in (HTTP, GRPC, GRAPHQL)
        ),
    )


def read_rows(conn: psycopg.Connection[Any], run: str) -> list[Stored]:
    """Return every row that a run has left."""
    rows = conn.execute(
        "SELECT metadata ->> 'audit.request_id', response_status, protocol FROM logstore.logs"
        " WHERE starts_with(metadata ->> 'audit.request_id', %s)",
        [f"{run}-"],
    )
    return [Stored(*row) for row in rows]


def _count(counter: Counter[tuple[str, int]], protocol: int) -> int:
    return sum(count for (_, each), count in counter.items() if each == protocol)
