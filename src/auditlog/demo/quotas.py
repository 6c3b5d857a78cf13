"""What the trail tells of the demo's quota: its decisions, as rows of `logstore.quota_logs`."""

from datetime import datetime
from typing import Any, NamedTuple

import psycopg

REFUSED = 429
"""Status of a request over the limit; nothing else in the demo answers with it."""
_DECISIONS_SQL = """
SELECT quota_id, previous_usage, current_usage, quota_limit, allowed, threshold_exceeded, count(*)
FROM logstore.quota_logs
WHERE log_date >= %s
GROUP BY 1, 2, 3, 4, 5, 6
ORDER BY min(log_date), current_usage
"""


class Decisions(NamedTuple):
    """Rows that say the same."""

    quota_id: str
    previous_usage: int
    current_usage: int
    quota_limit: int
    allowed: bool
    threshold_exceeded: bool
    rows: int


def read_decisions(conn: psycopg.Connection[Any], since: datetime) -> list[Decisions]:
    """Return the decisions that were recorded from an instant on, in the order of the first."""
    return [Decisions(*row) for row in conn.execute(_DECISIONS_SQL, [since])]
