"""A row of the tables: what a client does, and what the rows then say; the same for every service.

`on` holds what is different on one, and why stands beside it. Recorded on 2026-11-25 with
strawberry-graphql 0.341.2, ariadne 1.1.1 and graphql-core 3.3.2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from serving import Client

from auditlog import LogRecord
from auditlog.capture.graphql.document import read

Expected = Mapping[str, Any]
OK, CLIENT_ERROR, DENIED, SERVER_ERROR = "ok", "client_error", "denied", "server_error"
LEVELS = {OK: 1, CLIENT_ERROR: 2, DENIED: 2, SERVER_ERROR: 3, "client_disconnect": 2}
_TOLD = ("graphql.", "audit.rule", "error.type", "audit.capture_error")


@dataclass(frozen=True)
class Scenario:
    """One exchange with a service; `expected` are its GraphQL rows in the order they began."""

    name: str
    talk: Callable[[Client], Any]
    expected: tuple[Expected, ...]
    on: Mapping[str, tuple[Expected, ...]] = field(default_factory=dict)

    def expected_on(self, service: str) -> tuple[Expected, ...]:
        """What the rows say on one service."""
        return self.on.get(service, self.expected)


def row(
    outcome: str = OK,
    *,
    query: str | None = None,
    type: str | None = "query",  # noqa: A002  # GraphQL's word
    name: str | None = None,
    errors: list[Any] | None = None,
    method: str = "POST",
    url: str = "/graphql",
    status: int = 200,
    **metadata: Any,
) -> Expected:
    """What a row says; metadata by their keys with `_` for the dots."""
    told = {
        "graphql.operation.type": type,
        "graphql.operation.name": name,
        "graphql.errors": errors,
        "graphql.document.hash": read(query).hash if query else None,
        **{key.replace("__", "."): value for key, value in metadata.items()},
    }
    return {
        "protocol": 3,
        "method": method,
        "url": url,
        "status": status,
        "level": LEVELS[outcome],
        "outcome": outcome,
        "told": {key: value for key, value in told.items() if value is not None},
    }


def seen(record: LogRecord) -> Expected:
    """What a row says, in the same form."""
    metadata = record.metadata or {}
    assert metadata["audit.status_source"] == "wire"
    return {
        "protocol": record.protocol,
        "method": record.request_method,
        "url": record.request_url,
        "status": record.response_status,
        "level": record.log_level,
        "outcome": metadata["audit.outcome"],
        "told": {key: value for key, value in metadata.items() if key.startswith(_TOLD)},
    }
