"""Records that break what is careless, with rows among them that only the server refuses.

The whole road, on a real spool: Hypothesis makes records for every table, some are spoiled behind
the encoder's back, some meet a constraint of the operator's, and connections are cut meanwhile.
Each has to be in its table once, or among the dead letters.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fault_judge import Verdict
from fault_postgres import Database, Postgres
from fault_scene import Result
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import hostile
from auditlog import AuditLog, ExecutionLogRecord, LogRecord, Outcome, QuotaLogRecord, Settings
from auditlog.tables import TABLES

KINDS: tuple[type[Any], ...] = (LogRecord, ExecutionLogRecord, QuotaLogRecord)
REFUSED = "NEW.user_id = 'bury' OR (NEW.user_id = 'reduce' AND NEW.message IS NOT NULL)"
SPOILT: tuple[tuple[bytes, bytes], ...] = (
    (b"SPOIL-TEXT", b"SPOIL\0TEXT"),
    (b"SPOIL-UTF8", b"SPOIL\xff\xfe88"),
    (b'"SPOIL-JSON"', b'"SPOIL-\\ud800'),
    (b"SPOIL-SIZE", b"SPOIL"),
)
"""What the encoder would never let through: NUL, no UTF-8, no JSON, a length that is wrong."""

REDUCED = "SELECT count(*) FROM logstore.logs WHERE metadata ? 'audit.reduced'"
HANG_UP = 0.01
"""How often a connection is cut, of all records."""


def _fields(kind: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    columns = TABLES[KINDS.index(kind)].columns
    names = [each.name for each in columns if each.name not in {"instance_id", "log_id"}]
    needed = {each.name for each in columns if not each.nullable}
    return st.fixed_dictionaries(
        {name: hostile.anything for name in names if name in needed},
        optional={name: hostile.anything for name in names if name not in needed},
    )


_DEEDS = st.sampled_from(("", "", "", "", "", "bury", "reduce", *(old for old, _ in SPOILT)))
records = st.sampled_from(KINDS).flatmap(
    lambda kind: st.tuples(st.just(kind), _fields(kind), _DEEDS)
)


def hostile_records(postgres: Postgres, seed_: int, examples: int) -> tuple[Result, int]:
    """Send so many; return what became of them, and how many were reduced."""
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="al-fault-", ignore_cleanup_errors=True) as spool,
        postgres.database() as database,
        database.refusing(REFUSED),
    ):
        sent = _send(database, Path(spool), made(examples, seed_), random.Random(seed_))  # noqa: S311  # a scenario
        stored, dead = Counter(_stored(database)), set(_dead(database))
        ((reduced,),) = database.fetch(REDUCED)
    verdict = Verdict(
        sent=len(sent),
        acknowledged=len(sent),
        refused=0,
        stored=len(stored.keys() & sent),
        missing=tuple(sorted(sent - stored.keys() - dead)),
        dead=len(dead - stored.keys()),
        twice=tuple(name for name, count in stored.items() if count > 1 or name in dead),
        invented=tuple(sorted((stored.keys() | dead) - sent)),
    )
    name = "hostile records, some refused, sessions terminated"
    seconds = time.monotonic() - started
    return Result(name, "spool", seed_, verdict, seconds, 0.0, ""), reduced


def _send(database: Database, spool: Path, specimens: list[Any], chance: random.Random) -> set[str]:
    sent = set()
    audit = _audit(database, spool)
    with audit:
        for number, (kind, values, deed) in enumerate(specimens):
            identity = f"h-{number}"
            sent.add(identity)
            outcome = audit.submit(_record(kind, values, deed, identity))
            assert outcome is not Outcome.DROPPED, values
            if chance.random() < HANG_UP:
                database.hang_up()
        assert asyncio.run(audit.flush(60))
    return sent


def made(examples: int, seed_: int) -> list[Any]:
    """Let Hypothesis make records; beforehand, for it cannot have a thread beside it."""
    collected: list[Any] = []

    @seed(seed_)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(record=records)
    def collect(record: Any) -> None:
        collected.append(record)

    collect()
    return collected


def _record(kind: type[Any], values: dict[str, Any], deed: Any, identity: str) -> Any:
    changes: dict[str, Any] = {"log_id": identity, "instance_id": "hostile"}
    if isinstance(deed, bytes):
        # Into a text and into JSON, so that there is something to spoil in every kind of column.
        text = deed.decode()
        changes |= {"message": text, "metadata": {"k": text.strip('"')}}
        if kind is QuotaLogRecord:
            changes = changes | {"action": text}
    elif deed:
        changes |= {"user_id": deed, "message": "m"}
    known = set(kind.__dataclass_fields__)
    return kind(**{k: v for k, v in (values | changes).items() if k in known})


def _audit(database: Database, spool: Path) -> AuditLog:
    audit = AuditLog(
        database.service_dsn,
        settings=Settings(
            durability="spool",
            spool_dir=str(spool),
            batch_age_s=0.01,
            retry_min_s=0.001,
            retry_max_s=0.02,
        ),
    )
    encode = audit._encode

    def encode_and_spoil(record: Any) -> tuple[int, bytes]:
        table, row = encode(record)
        for old, new in SPOILT:
            row = row.replace(old, new)
        return table, row

    audit._encode = encode_and_spoil  # type: ignore[method-assign]
    return audit


def _stored(database: Database) -> Iterable[str]:
    for table in TABLES:
        query = f"SELECT log_id FROM {table.qualified_name} WHERE instance_id = 'hostile'"  # noqa: S608  # our own names
        yield from (identity for (identity,) in database.fetch(query))


def _dead(database: Database) -> Iterable[str]:
    for (row,) in database.fetch("SELECT row FROM logstore.dead_letters"):
        yield _identity(bytes(row))


def _identity(row: bytes) -> str:
    """The second field of a tuple, whose first one is the tenant."""
    at = 6 + row[5]
    return row[at + 4 : at + 4 + row[at + 3]].decode()
