"""What the database holds in the end: rows by request and stage, gaps, dead letters.

Read with plain SQL, and with none of the code under test.
"""

import base64
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

_ROWS = """
    SELECT coalesce(metadata ->> 'audit.request_id', metadata ->> 'fault_id',
                    substring(request_url FROM '/r/([^?]+)'),
                    substring(user_id FROM 's[0-9]+-[0-9]+')),
           coalesce(metadata ->> 'audit.stage',
                    CASE WHEN metadata ? 'audit.reduced' THEN 'reduced' END)
    FROM logstore.logs
    WHERE event_type IS NULL OR event_type NOT IN ('audit.start', 'audit.stop', 'audit.gap')
"""
_GAPS = """
    SELECT metadata ->> 'audit.gap.reason', (metadata ->> 'audit.gap.count')::int
    FROM logstore.logs WHERE event_type = 'audit.gap'
"""
_HAS_DEAD_LETTERS = "SELECT to_regclass('logstore.dead_letters') IS NOT NULL"
_DEAD_LETTERS = "SELECT row FROM logstore.dead_letters"
_IDENTITY = re.compile(rb"s\d+-\d+")


class Row(NamedTuple):
    """A row of a request."""

    identity: str
    stage: str | None
    """`received`, `complete`, `late`; None where a request has one row; `reduced` where a row
    was stored without its texts, and its stage, if it had one, with them."""


class Gap(NamedTuple):
    """A loss that the trail tells of."""

    reason: str
    count: int


@dataclass
class Trail:
    """Everything that is accounted for."""

    rows: list[Row] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    """The requests whose rows are dead letters."""


def read_trail(dsn: str, spool: Path | None = None) -> Trail:
    """Read what is there of any request, and all gaps and dead letters, those on the disk too."""
    with psycopg.connect(dsn) as conn:
        return Trail(
            rows=[
                Row(identity, stage)
                for identity, stage in conn.execute(_ROWS.encode())
                if identity is not None
            ],
            gaps=[Gap(*row) for row in conn.execute(_GAPS.encode())],
            dead=_dead_letters(conn) + _letters_on_disk(spool),
        )


def _dead_letters(conn: psycopg.Connection[Any]) -> list[str]:
    if conn.execute(_HAS_DEAD_LETTERS.encode()).fetchone() == (False,):
        return []
    rows = conn.execute(_DEAD_LETTERS.encode())
    return [identity for (row,) in rows if (identity := identity_of(bytes(row)))]


def _letters_on_disk(spool: Path | None) -> list[str]:
    files = [] if spool is None else spool.glob("dead-letters/*.jsonl")
    letters = (json.loads(line) for file in files for line in file.read_bytes().splitlines())
    return [identity_of(base64.b64decode(letter["row"])) for letter in letters]


def identity_of(row: bytes) -> str:
    """Find the id of a request in the bytes of its row; an empty text if it is not there."""
    found = _IDENTITY.search(row)
    return found[0].decode() if found else ""
