"""Records that break what is careless, with rows among them that only the server refuses.

The whole road, on a real spool: Hypothesis makes records for every table, some are spoiled behind
the encoder's back, some meet a constraint of the operator's, and connections are cut meanwhile.
Each is in its table once, or among the dead letters.
"""

import asyncio
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fault_on_records as faults
import pytest
from fault_postgres import Database, Postgres
from fault_scene import tried
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import hostile
from auditlog import AuditLog, ExecutionLogRecord, LogRecord, QuotaLogRecord, Settings
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

REDUCED = "SELECT count(*) > 5 FROM logstore.logs WHERE metadata ? 'audit.reduced'"
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


def test_hostile_records_are_stored_or_buried(postgres: Postgres, tmp_path: Path) -> None:
    with postgres.database() as database, database.refusing(REFUSED):
        sent, kept = road(database, tmp_path, 200, seed_=1)
        assert len(sent) >= 150
        assert sorted(kept) == sorted(sent)
        assert database.fetch("SELECT count(*) > 20 FROM logstore.dead_letters") == [(True,)]
        assert database.fetch(REDUCED) == [(True,)]


@pytest.mark.parametrize("mode", ["memory", "commit"])
def test_refused_rows_are_reduced_or_buried(mode: str, postgres: Postgres) -> None:
    """One in ten, by turns, while connections are cut."""
    fault = faults.refused_and_cut
    result = tried("rows refused", fault, postgres, mode, seed=1, user=faults.some)
    result.check()
    assert result.verdict.dead > 0


def test_dead_letters_without_a_table_go_to_their_file(postgres: Postgres) -> None:
    fault = faults.refused_and_no_place
    result = tried("no table", fault, postgres, "spool", seed=1, user=faults.some)
    result.check()
    assert result.verdict.dead > 0


def road(
    database: Database, spool: Path, examples: int, *, seed_: int
) -> tuple[list[str], list[str]]:
    """Send hostile records; return the identities of all, and of those that are kept somewhere."""
    chance = random.Random(seed_)  # noqa: S311  # a scenario, not a secret
    specimens = made(examples, seed_)
    audit = _audit(database, spool)
    with audit:
        for number, (kind, values, deed) in enumerate(specimens):
            audit.submit(_record(kind, values, deed, f"h-{number}"))
            if chance.random() < HANG_UP:
                database.hang_up()
        assert asyncio.run(audit.flush(60))
    return [f"h-{number}" for number in range(len(specimens))], list(_kept(database))


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


def _kept(database: Database) -> Iterable[str]:
    for table in TABLES:
        query = f"SELECT log_id FROM {table.qualified_name} WHERE instance_id = 'hostile'"  # noqa: S608  # our own names
        yield from (identity for (identity,) in database.fetch(query))
    for (row,) in database.fetch("SELECT row FROM logstore.dead_letters"):
        yield _identity(bytes(row))


def _identity(row: bytes) -> str:
    """The second field of a tuple, whose first one is the tenant."""
    at = 6 + row[5]
    return row[at + 4 : at + 4 + row[at + 3]].decode()
