"""Any Python value → one that PostgreSQL stores, and the names of what had to be changed.

The careful half of encoding: slow, total, and safe. It never raises, never calls `repr` or
`str` on a foreign object (both may raise, block or show a secret), never consumes an iterator,
and ends on circular and endless structures. What jsonb and text refuse (NUL, lone surrogates,
NaN, numbers without bounds; SQLSTATE 22021, 22P05, 22P02, 22003, 54001) is replaced.
"""

import base64
import dataclasses
import datetime as dt
import decimal
import enum
import ipaddress
import math
import os
import uuid
from collections.abc import Mapping, Sequence, Set
from typing import Any

import orjson

REPLACEMENT = "\ufffd"
MAX_DEPTH = 32
MAX_NODES = 5_000

PG_EPOCH_US = 946_684_800_000_000
_UNIX_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
# What timestamptz holds: 4713-11-24 BC (rounded up a day) to the end of 294276.
_MIN_TIMESTAMP_US = -211_813_401_600_000_000
_MAX_TIMESTAMP_US = 9_224_318_015_999_999_999
_INT64_MAX = 2**63 - 1
_MAX_WRITTEN_BITS = 4096


def storable_text(value: Any, max_bytes: int) -> tuple[bytes, bool]:
    """Return UTF-8 bytes of at most `max_bytes`, and whether anything had to change."""
    text, changed = _plain_text(value)
    data = text.encode()
    if len(data) > max_bytes:
        # "ignore" drops the character that the cut went through.
        return data[:max_bytes].decode(errors="ignore").encode(), True
    return data, changed


def storable_timestamp(value: Any) -> tuple[int, bool]:
    """Return microseconds since 2000-01-01 UTC, and whether the value had to be clamped.

    Takes microseconds since the Unix epoch or a datetime; a naive one means UTC.
    """
    if isinstance(value, dt.datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
        return (aware - _UNIX_EPOCH) // _MICROSECOND - PG_EPOCH_US, False
    number, changed = storable_integer(value, _MIN_TIMESTAMP_US, _MAX_TIMESTAMP_US)
    return number - PG_EPOCH_US, changed


def storable_integer(value: Any, low: int, high: int) -> tuple[int, bool]:
    """Return an integer within the bounds, and whether it had to be clamped or made up."""
    if not isinstance(value, int | float) or (isinstance(value, float) and math.isnan(value)):
        return max(low, 0), True
    clamped = min(max(value, low), high)
    return int(clamped), clamped != value or not isinstance(value, int)


def storable_json(value: Any, max_bytes: int) -> tuple[bytes, list[str]]:
    """Return JSON text of at most `max_bytes`, and the top-level keys that had to change.

    An object that is too large keeps its entries in order while they fit.
    """
    simplifier = _Simplifier()
    if not isinstance(value, Mapping):
        data = orjson.dumps(simplifier.simplify(value))
        if len(data) <= max_bytes:
            return data, ["value"] if simplifier.changed else []
        return b"null", ["value"]
    return _storable_object(simplifier, value, max_bytes)


def _storable_object(
    simplifier: "_Simplifier", value: Mapping[Any, Any], max_bytes: int
) -> tuple[bytes, list[str]]:
    entries: dict[str, Any] = {}
    changed: list[str] = []
    left = max_bytes - len(b"{}")
    for key, item in _items(value):
        name, renamed = simplifier.key(key)
        simplifier.changed = renamed
        simple = simplifier.simplify(item)
        size = len(orjson.dumps({name: simple})) - 1
        if size > left:
            simplifier.changed = True
            simple = (
                simple[: max(left - len(name) * 2 - 16, 0) // 6] if type(simple) is str else None
            )
            size = len(orjson.dumps({name: simple})) - 1
        if simplifier.changed:
            changed.append(name)
        if size <= left:
            entries[name] = simple
            left -= size
    return orjson.dumps(entries), changed


class _Simplifier:
    """Turns a value into what orjson takes and jsonb stores; remembers whether it lied."""

    def __init__(self) -> None:
        self.changed = False
        self._nodes = 0

    def simplify(self, value: Any, depth: int = 0) -> Any:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            return self._stand_in(value)
        try:
            return self._simplify(value, depth)
        except Exception:  # noqa: BLE001  # foreign __iter__, __getitem__, properties: anything
            return self._stand_in(value)

    def key(self, key: Any) -> tuple[str, bool]:
        if isinstance(key, str):
            return _plain_text(key)
        if key is None or isinstance(key, bool | int | float):
            return _plain_text(orjson.dumps(self.simplify(key)).decode().strip('"'))
        return f"<{type(key).__name__}>", True

    def _simplify(self, value: Any, depth: int) -> Any:  # noqa: PLR0911  # one line a type
        if value is None or value is True or value is False:
            return value
        if isinstance(value, enum.Enum):
            return self.simplify(value.value, depth + 1)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            return self._integer(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self._change(float.__repr__(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(bytes(value))
        text = self._scalar(value)
        return self._container(value, depth) if text is None else text

    def _scalar(self, value: Any) -> str | None:
        """Standard types with one obvious text; None for all others."""
        if isinstance(value, dt.date | dt.time):
            return value.isoformat()
        if isinstance(value, dt.timedelta):
            return f"{value.total_seconds()}s"
        if isinstance(value, decimal.Decimal | uuid.UUID | _IP):
            return self._text(str(value))
        if isinstance(value, os.PathLike):
            return self._text(os.fspath(value))
        return None

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, Sequence | Set):
            return [self.simplify(item, depth + 1) for item in value]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = (field.name for field in dataclasses.fields(value))
            return {name: self.simplify(getattr(value, name), depth + 1) for name in names}
        return self._stand_in(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        result = {}
        for key, item in _items(value):
            name, renamed = self.key(key)
            self.changed = self.changed or renamed
            result[name] = self.simplify(item, depth + 1)
        return result

    def _text(self, value: str | bytes) -> str:
        text, changed = _plain_text(value)
        self.changed = self.changed or changed
        return text

    def _integer(self, value: int) -> int | str:
        if -_INT64_MAX <= value <= _INT64_MAX:
            return int(value)
        # str() of an int refuses over 4300 digits, and takes quadratic time below that.
        bits = value.bit_length()
        written_out = bits <= _MAX_WRITTEN_BITS
        return self._change(int.__repr__(value) if written_out else f"<int of {bits} bits>")

    def _bytes(self, value: bytes) -> str:
        try:
            return self._text(value.decode())
        except UnicodeDecodeError:
            return self._change("base64:" + base64.b64encode(value).decode())

    def _stand_in(self, value: Any) -> str:
        return self._change(f"<{type(value).__module__}.{type(value).__qualname__}>")

    def _change(self, text: str) -> str:
        self.changed = True
        return _plain_text(text)[0]


_IP = ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network


def _items(value: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """The entries at this instant: another thread may still be annotating."""
    try:
        return list(value.items())
    except Exception:  # noqa: BLE001  # a foreign mapping may do anything
        return []


def _plain_text(value: Any) -> tuple[str, bool]:
    """Text without NUL and lone surrogates, and whether that differs from the value."""
    if isinstance(value, bytes):
        value = value.decode(errors="surrogateescape")
    if not isinstance(value, str):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _Simplifier().key(value)[0], True
        return f"<{type(value).__module__}.{type(value).__qualname__}>", True
    original = str.__str__(value)
    try:
        original.encode()
    except UnicodeEncodeError:
        text = original.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text.replace("\0", REPLACEMENT), True
    if "\0" in original:
        return original.replace("\0", REPLACEMENT), True
    return original, False
