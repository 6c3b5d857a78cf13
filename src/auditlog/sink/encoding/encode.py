"""A record → the bytes of one binary COPY tuple, made once, at submit.

The quick half takes an ordinary `LogRecord` and gives up at the first surprise; the careful half
(`careful.py`) takes every record of every table, makes it storable and says what it changed.
`encode` raises only for what is no record, and nobody can change a record after it: the bytes
are what the buffer bounds and COPY ships.

Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

import struct
import time
from datetime import date
from datetime import time as clock_time
from math import isfinite
from typing import Any

import orjson
import uuid_utils

from auditlog.records import ExecutionLogRecord, LogRecord, QuotaLogRecord, Record
from auditlog.settings import Settings
from auditlog.sink.encoding.careful import careful_tuple
from auditlog.sink.encoding.storable import MAX_TIMESTAMP_US, MIN_TIMESTAMP_US, PG_EPOCH_US
from auditlog.tables import EXECUTION_LOGS, LOGS, QUOTA_LOGS

MAX_CACHED_TENANTS = 1024

# In the order of `TABLES`.
_TABLE_OF = {LogRecord: LOGS, ExecutionLogRecord: EXECUTION_LOGS, QuotaLogRecord: QUOTA_LOGS}

_NULL = b"\xff\xff\xff\xff"
_FOUR_NULLS = _NULL * 4
_JSONB_VERSION = b"\x01"
_UUID_CHARS = 36
_LONG_TEXT = 8192
_SHORT_TEXT = 255
_METHOD_TEXT = 64
_CACHED_LENGTHS = 256
_BACKSLASH = ord("\\")
_uuid7 = uuid_utils.uuid7
_pack_length = struct.Struct(">i").pack
# Not the value's own method, which a subclass of str may replace; as fast.
_utf8 = str.encode
_pack_integer = struct.Struct(">ii").pack
_pack_bigint = struct.Struct(">iq").pack
_pack_identity = struct.Struct(f">i{_UUID_CHARS}siqiq").pack
# Ready-made fields: a lookup takes 13 ns, a struct call 43 (2026-11-24, CPython 3.11).
_STATUSES = {status: _pack_integer(4, status) for status in range(600)} | {None: _NULL}
_PROTOCOLS = {number: struct.pack(">ih", 2, number) for number in range(4)}
_LEVELS = {number: struct.pack(">ih", 2, number) for number in range(1, 5)}
_LENGTHS = [_pack_length(length) for length in range(_CACHED_LENGTHS)]
_MILLISECONDS = {ms: _pack_integer(4, ms) for ms in range(1024)} | {None: _NULL}

_METHODS = {
    name: _pack_length(len(name)) + name.encode()
    for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
} | {None: _NULL}


class Encoder:
    """Encodes records under the bounds of one `Settings`; safe to call from any thread."""

    def __init__(self, settings: Settings) -> None:
        self._instance_id = settings.instance_id
        self._max_bytes = settings.max_row_bytes
        self._heads: dict[str | None, bytes] = {}

    def encode(self, record: Record) -> tuple[int, bytes]:
        """Return the index into `TABLES` and the tuple; fill identity and clocks if absent.

        Raises:
            TypeError: not a record at all, which is a mistake of the caller's code.
        """
        kind = type(record)
        if kind is LogRecord:
            try:
                row = self._quick(record)  # type: ignore[arg-type]  # `kind` has checked
                if len(row) <= self._max_bytes:
                    return 0, row
            except Exception:  # noqa: BLE001, S110  # whatever it was, the careful half copes
                pass
        for index, (known, table) in enumerate(_TABLE_OF.items()):
            if isinstance(record, known):
                return index, careful_tuple(
                    record, table, instance_id=self._instance_id, max_bytes=self._max_bytes
                )
        names = ", ".join(known.__name__ for known in _TABLE_OF)
        raise TypeError(f"a record is one of {names}, not {kind.__name__}")

    def _quick(self, record: LogRecord) -> bytes:
        """Encode the ordinary case; raise, no matter what, on anything else."""
        recorded_us: Any = record.log_date
        if recorded_us is None:
            recorded_us = time.time_ns() // 1000
        elif not MIN_TIMESTAMP_US <= recorded_us <= MAX_TIMESTAMP_US:
            raise ValueError
        occurred_us: Any = record.occurrence_date
        if occurred_us is None:
            occurred_us = recorded_us
        elif not MIN_TIMESTAMP_US <= occurred_us <= MAX_TIMESTAMP_US:
            raise ValueError
        head = self._heads.get(record.instance_id) or self._head(record.instance_id)
        log_id = record.log_id
        method: Any = record.request_method
        headers = record.request_headers
        metadata = record.metadata
        return b"".join(
            (
                head,
                # A record id of any other length, or a datetime, is for the careful half.
                _pack_identity(
                    _UUID_CHARS,
                    str(_uuid7()).encode() if log_id is None else _uuid_text(log_id),
                    8,
                    recorded_us - PG_EPOCH_US,
                    8,
                    occurred_us - PG_EPOCH_US,
                ),
                _FOUR_NULLS
                if record.event_type is None
                and record.aggregate_type is None
                and record.aggregate_id is None
                and record.event_sequence is None
                else _event(record),
                _NULL if record.user_id is None else _text(record.user_id, _SHORT_TEXT),
                _NULL
                if record.resource_owner is None
                else _text(record.resource_owner, _SHORT_TEXT),
                _PROTOCOLS[record.protocol],
                _NULL if record.request_url is None else _text(record.request_url, _LONG_TEXT),
                _METHODS.get(method) or _text(method, _METHOD_TEXT),
                _NULL if headers is None else _json(headers),
                _STATUSES[record.response_status],
                _MILLISECONDS.get(record.response_time_ms) or _milliseconds(record),
                _LEVELS[record.log_level],
                _NULL if record.message is None else _text(record.message, _LONG_TEXT),
                _NULL if metadata is None else _finite_json(metadata),
            )
        )

    def _head(self, instance_id: str | None) -> bytes:
        """The number of fields and the tenant, which most tuples share."""
        head = struct.pack(">h", len(LOGS.columns))
        tenant = self._instance_id if instance_id is None or instance_id == "" else instance_id
        head += _text(tenant, _SHORT_TEXT)
        if len(self._heads) < MAX_CACHED_TENANTS:
            self._heads[instance_id] = head
        return head


def _uuid_text(log_id: str) -> bytes:
    data = _utf8(log_id)
    if len(data) != _UUID_CHARS or 0 in data:
        raise ValueError
    return data


def _event(record: LogRecord) -> bytes:
    sequence = record.event_sequence
    return b"".join(
        (
            _NULL if record.aggregate_type is None else _text(record.aggregate_type, _SHORT_TEXT),
            _NULL if record.aggregate_id is None else _text(record.aggregate_id, _SHORT_TEXT),
            _NULL if sequence is None else _pack_bigint(8, sequence),
            _NULL if record.event_type is None else _text(record.event_type, _SHORT_TEXT),
        )
    )


def _text(text: str, max_bytes: int) -> bytes:
    data = _utf8(text)
    length = len(data)
    if length > max_bytes or 0 in data:
        raise ValueError
    return (_LENGTHS[length] if length < _CACHED_LENGTHS else _pack_length(length)) + data


def _milliseconds(record: LogRecord) -> bytes:
    elapsed = record.response_time_ms
    if elapsed is None or elapsed < 0:
        raise ValueError
    return _pack_integer(4, elapsed)


def _json(value: Any) -> bytes:
    # orjson 3.13 does not survive a zone whose utcoffset() raises: dates are written out here.
    data = orjson.dumps(value, _date_text, orjson.OPT_PASSTHROUGH_DATETIME)
    # jsonb refuses \u0000 wherever it stands. The search for one byte is a memchr.
    if _BACKSLASH in data and b"\\u0000" in data:
        raise ValueError
    return _pack_length(len(data) + 1) + _JSONB_VERSION + data


def _date_text(value: Any) -> str:
    if isinstance(value, date | clock_time):
        return value.isoformat()
    raise TypeError


def _finite_json(metadata: Any) -> bytes:
    field = _json(metadata)
    # orjson writes NaN and the infinities as null: the careful half keeps and marks them.
    # `find`, for `in` takes the bytes for an integer first: 0.13 µs (2026-11-24).
    if field.find(b"null") >= 0 and not _is_finite(metadata):
        raise ValueError
    return field


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_finite, value))
    return value is None or isinstance(value, str | int | date | clock_time)
