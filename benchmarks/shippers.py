"""The ways from rows in memory to rows committed, each timed from its first row to its last commit.

All of them get the same rows, and ship them in batches of the same size where the way has batches.
Connecting is in the time of those that run in this process, and not in psql's.
"""

import asyncio
import re
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import uuid_utils
from psycopg.conninfo import conninfo_to_dict

from auditlog.records import LogRecord
from auditlog.reporting import Reporter
from auditlog.settings import Settings
from auditlog.sink.chain import Chain
from auditlog.sink.encoding.encode import Encoder
from auditlog.sink.writer import Writer
from auditlog.tables import LOGS

BATCH_ROWS = 1_000
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Cost:
    """What one turn cost."""

    seconds: float = 0.0
    client_cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Load:
    """The same rows in every form that somebody wants them in."""

    records: list[LogRecord]
    tuples: list[bytes]
    values: list[tuple[Any, ...]]

    @classmethod
    def of(cls, records: list[LogRecord]) -> "Load":
        """Encode for us, and make values for the others."""
        encode = Encoder(Settings()).encode
        tuples = [encode(record)[1] for record in records]
        return cls(records, tuples, [values_of(record) for record in records])

    def write_files(self, folder: Path, rows: int) -> list[Path]:
        """Write files for `COPY ... (FORMAT binary)` of so many rows each."""
        paths = []
        for number, part in enumerate(batches(self.tuples, rows)):
            path = folder / f"{rows}_{number:05}.copy"
            path.write_bytes(b"".join((_SIGNATURE, *part, _TRAILER)))
            paths.append(path)
        return paths


Shipper = Callable[[str], Awaitable[Cost]]


def ours(load: Load, *, encode: bool) -> Shipper:
    """Buffer, writer and target as `AuditLog` puts them together; with or without the encoder."""

    async def ship(dsn: str) -> Cost:
        # Room for all of them: a benchmark that waits for nobody would overrun any queue.
        settings = Settings(
            dsn=dsn,
            batch_rows=BATCH_ROWS,
            max_queued_rows=len(load.tuples),
            max_queued_bytes=1 << 40,
            life_rows=False,
        )
        encoder = Encoder(settings)
        chain = Chain(settings, encoder, Reporter(), _resolved(dsn), lambda: None)
        async with _timed() as cost:
            if encode:
                for record in load.records:
                    table, row = encoder.encode(record)
                    chain.put(table, row, False, None)
            else:
                for row in load.tuples:
                    chain.put(0, row, False, None)
            await _ship_all(chain.writer)
        assert chain.stats().written == len(load.tuples)
        return cost

    return ship


def psql(program: str, files: list[Path]) -> Shipper:
    r"""Ship with `\copy` of each file, in one psql; the time is what its `\timing` says."""
    copy = rf"\copy {LOGS.qualified_name} from '%s' with (format binary)"
    script = "\n".join([r"\set ON_ERROR_STOP on", r"\timing on", *(copy % path for path in files)])

    async def ship(dsn: str) -> Cost:
        before = _cpu_seconds(resource.RUSAGE_CHILDREN)
        process = await asyncio.create_subprocess_exec(
            *(program, "-X", "-q", "-f", "-", dsn),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate(script.encode())
        assert process.returncode == 0
        times = re.findall(r"^Time: ([\d.]+) ms", output.decode(), re.MULTILINE)
        assert len(times) == len(files)
        used = _cpu_seconds(resource.RUSAGE_CHILDREN) - before
        return Cost(sum(map(float, times)) / 1000, used)

    return ship


def psycopg_executemany(load: Load) -> Shipper:
    """INSERT in psycopg's pipeline, one transaction a batch."""
    places = ", ".join(["%s"] * len(LOGS.columns))
    names = ", ".join(LOGS.column_names)
    statement = f"INSERT INTO {LOGS.qualified_name} ({names}) VALUES ({places})"  # noqa: S608  # constants

    async def ship(dsn: str) -> Cost:
        async with _timed() as cost:
            connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
            async with connection:
                for batch in batches(load.values, BATCH_ROWS):
                    async with connection.transaction(), connection.cursor() as cursor:
                        await cursor.executemany(statement.encode(), batch)
        return cost

    return ship


def asyncpg_copy(load: Load, *, encode: bool) -> Shipper:
    """`copy_records_to_table`, one transaction a batch; with or without making the values."""

    async def ship(dsn: str) -> Cost:
        import asyncpg  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra

        parts = conninfo_to_dict(dsn)
        where = {key: parts[key] for key in ("host", "port", "user", "password") if key in parts}
        async with _timed() as cost:
            rows = list(map(values_of, load.records)) if encode else load.values
            connection = await asyncpg.connect(database=parts["dbname"], **where)
            for batch in batches(rows, BATCH_ROWS):
                await connection.copy_records_to_table(
                    LOGS.name, schema_name=LOGS.schema, columns=LOGS.column_names, records=batch
                )
            await connection.close()
        return cost

    return ship


def batches(rows: list[Any], size: int) -> Iterator[list[Any]]:
    """Cut a list into lists of so many."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def values_of(record: LogRecord) -> tuple[Any, ...]:
    """Make of a record what a driver takes: JSON as text, which is cheapest for all of them."""
    return (
        record.instance_id,
        str(uuid_utils.uuid7()),
        _instant(record.log_date),
        _instant(record.occurrence_date),
        record.aggregate_type,
        record.aggregate_id,
        record.event_sequence,
        record.event_type,
        record.user_id,
        record.resource_owner,
        record.protocol,
        record.request_url,
        record.request_method,
        orjson.dumps(record.request_headers).decode(),
        record.response_status,
        record.response_time_ms,
        record.log_level,
        record.message,
        orjson.dumps(record.metadata).decode(),
    )


def _instant(us: Any) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


async def _ship_all(writer: Writer) -> None:
    running = asyncio.create_task(writer.run())
    await asyncio.sleep(0)  # `run` begins by forgetting an earlier `stop`
    writer.stop()
    await running


def _resolved(dsn: str) -> Callable[[], Awaitable[str]]:
    async def resolve() -> str:
        return dsn

    return resolve


@asynccontextmanager
async def _timed() -> AsyncIterator[Cost]:
    cost = Cost()
    cpu, started = _cpu_seconds(resource.RUSAGE_SELF), time.perf_counter()
    yield cost
    cost.seconds = time.perf_counter() - started
    cost.client_cpu_seconds = _cpu_seconds(resource.RUSAGE_SELF) - cpu


def _cpu_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime
