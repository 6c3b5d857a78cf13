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
import operator
import os
import time
import uuid
from collections.abc import Mapping, Sequence, Set
from itertools import islice
from typing import Any

import orjson

REPLACEMENT = "\ufffd"
WHOLE = "*"
MAX_DEPTH = 32
MAX_NODES = 5_000

PG_EPOCH_US = 946_684_800_000_000
# What timestamptz holds, 4714-11-24 BC to the end of 294276, in microseconds of the Unix epoch.
MIN_TIMESTAMP_US = -210_866_803_200_000_000
MAX_TIMESTAMP_US = 9_224_318_015_999_999_999
_UNIX_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_MAX_WRITTEN_BITS = 4096
_MAX_NODES_IN_TEXT = 64
_MAX_STAND_IN_CHARS = 120


def storable_text(value: Any, max_bytes: int) -> tuple[bytes, bool]:
    """Return UTF-8 bytes of at most `max_bytes`, and whether anything had to change."""
    text, changed = _text_of(value, max_bytes)
    data = text.encode()
    if len(data) > max_bytes:
        # "ignore" drops the character that the cut went through.
        return data[:max_bytes].decode(errors="ignore").encode(), True
    return data, changed


def storable_timestamp(value: Any) -> tuple[int, bool]:
    """Return microseconds since 2000-01-01 UTC, and whether the value had to be changed.

    Takes microseconds since the Unix epoch or a datetime; a naive one means UTC. What is neither
    becomes now.
    """
    try:
        if isinstance(value, dt.datetime):
            aware = value if value.utcoffset() is not None else value.replace(tzinfo=dt.UTC)
            return (aware - _UNIX_EPOCH) // _MICROSECOND - PG_EPOCH_US, False
    except Exception:  # noqa: BLE001  # a foreign tzinfo, or a foreign __class__
        value = None
    number, changed = storable_integer(value, MIN_TIMESTAMP_US, MAX_TIMESTAMP_US)
    return (time.time_ns() // 1000 if number is None else number) - PG_EPOCH_US, changed


def storable_integer(value: Any, low: int, high: int) -> tuple[int | None, bool]:
    """Return an integer within the bounds, and whether it is another than the value.

    None for what is not a number.
    """
    try:
        number = value if isinstance(value, float | decimal.Decimal) else operator.index(value)
        clamped = int(min(max(number, low), high))
        return clamped, bool(clamped != number)
    except Exception:  # noqa: BLE001  # not a number, NaN, or a foreign operator
        return None, True


def storable_json(value: Any, max_bytes: int) -> tuple[bytes, list[str]]:
    """Return JSON text of at most `max_bytes`, and the top-level keys that had to change.

    An object that is too large keeps its entries in order while they fit; a text that does not
    is cut to half of the room that is left, so that small ones after it fit. `WHOLE` stands for
    a value that is no object, and for one whose entries cannot all be read.
    """
    if _is_mapping(value):
        return _storable_object(value, max_bytes)
    simplifier = _Simplifier(max_bytes)
    simple = simplifier.simplify(value)
    data = orjson.dumps(simple)
    if len(data) <= max_bytes:
        return data, [WHOLE] if simplifier.changed else []
    return orjson.dumps(_shortened(simple, max_bytes)), [WHOLE]


def _storable_object(value: Mapping[Any, Any], max_bytes: int) -> tuple[bytes, list[str]]:
    entries: dict[str, Any] = {}
    left = max_bytes - len(b"{}")
    simplifier = _Simplifier(left)
    items, complete = _items(value, MAX_NODES)
    changed = [] if complete else [WHOLE]
    for key, item in items:
        name, renamed = _text_of(key, max_bytes)
        simplifier.begin(left)
        simple = simplifier.simplify(item)
        size = len(orjson.dumps({name: simple})) - 1
        if size > left:
            simplifier.changed = True
            simple = _shortened(simple, left // 2 - len(orjson.dumps(name)) - len(b":,"))
            size = len(orjson.dumps({name: simple})) - 1
        if renamed or simplifier.changed or name in entries:
            changed.append(name)
        if size <= left:
            entries[name] = simple
            left -= size
    return orjson.dumps(entries), changed


class _Simplifier:
    """Turns a value into what orjson takes and jsonb stores; remembers whether it lied."""

    def __init__(self, max_chars: int, max_nodes: int = MAX_NODES) -> None:
        self.changed = False
        self._chars_left = max_chars
        self._nodes_left = max_nodes

    def begin(self, max_chars: int) -> None:
        """Forget the last value, but not how much work it was."""
        self.changed = False
        self._chars_left = max_chars

    def simplify(self, value: Any, depth: int = 0) -> Any:
        self._nodes_left -= 1
        if depth > MAX_DEPTH or self._nodes_left < 0:
            return self._stand_in(value)
        try:
            return self._simplify(value, depth)
        except Exception:  # noqa: BLE001  # foreign __iter__, __getitem__, properties: anything
            return self._stand_in(value)

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
        text = _scalar(value)
        return self._container(value, depth) if text is None else self._text(text)

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, Sequence | Set):
            items = list(islice(value, max(self._nodes_left, 0) + 1))
            if len(items) > self._nodes_left:
                self.changed = True
                items.pop()
            return [self.simplify(item, depth + 1) for item in items]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            # Without the private ones, as orjson has it.
            return {
                name: self.simplify(getattr(value, name), depth + 1)
                for name in names
                if not name.startswith("_")
            }
        return self._stand_in(value)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        items, complete = _items(value, max(self._nodes_left, 0))
        self.changed = self.changed or not complete
        for key, item in items:
            name, renamed = _text_of(key, self._chars_left)
            self._chars_left -= len(name)
            self.changed = self.changed or renamed or name in result
            result[name] = self.simplify(item, depth + 1)
        return result

    def _text(self, value: str) -> str:
        text, changed = _plain_text(value, self._chars_left)
        self._chars_left -= len(text)
        self.changed = self.changed or changed
        return text

    def _integer(self, value: int) -> int | str:
        # The integers that orjson takes. jsonb would take more.
        if -(2**63) <= value < 2**64:
            return int(value)
        # str() of an int refuses over 4300 digits, and takes quadratic time below that.
        bits = value.bit_length()
        written_out = bits <= _MAX_WRITTEN_BITS
        return self._change(int.__repr__(value) if written_out else f"<int of {bits} bits>")

    def _bytes(self, value: bytes) -> str:
        try:
            return self._text(value.decode())
        except UnicodeDecodeError:
            head = value[: max(self._chars_left, 0) * 3 // 4]
            return self._change(self._text("base64:" + base64.b64encode(head).decode()))

    def _stand_in(self, value: Any) -> str:
        return self._change(_type_name(value))

    def _change(self, text: str) -> str:
        self.changed = True
        return text


_IP = ipaddress.IPv4Address | ipaddress.IPv6Address | ipaddress.IPv4Network | ipaddress.IPv6Network


def _is_mapping(value: Any) -> bool:
    try:
        return isinstance(value, Mapping)
    except Exception:  # noqa: BLE001  # a foreign __class__
        return False


def _items(value: Mapping[Any, Any], limit: int) -> tuple[list[tuple[Any, Any]], bool]:
    """Read at most `limit` entries as of this instant, and tell whether these are all."""
    try:
        # A dict is copied at one stroke: another thread may still be annotating.
        copy = value.copy() if type(value) is dict else dict(islice(value.items(), limit + 1))
    except Exception:  # noqa: BLE001  # a foreign mapping may do anything
        return [], False
    return list(islice(copy.items(), limit)), len(copy) <= limit


def _scalar(value: Any) -> str | None:
    """Return the one obvious text that values of some standard types have; None for others."""
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return f"{value.total_seconds()}s"
    if isinstance(value, decimal.Decimal | uuid.UUID | _IP):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    return None


def _text_of(value: Any, max_chars: int) -> tuple[str, bool]:
    """Return a string or a scalar as text, anything else as JSON; and whether that is a change."""
    if type(value) is str:
        return _plain_text(value, max_chars)
    simplifier = _Simplifier(max_chars, _MAX_NODES_IN_TEXT)
    simple = simplifier.simplify(value)
    if type(simple) is str:
        return simple, simplifier.changed
    is_container = isinstance(simple, list | dict)
    return orjson.dumps(simple).decode(), simplifier.changed or is_container


def _plain_text(value: str, max_chars: int) -> tuple[str, bool]:
    """Return text without NUL and lone surrogates, and whether that differs from the value."""
    original = str.__str__(value)
    text = original[: max(max_chars, 0)]
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\0" in text:
        text = text.replace("\0", REPLACEMENT)
    return text, text != original


def _shortened(simple: Any, max_bytes: int) -> Any:
    """Return the beginning of a text, or of a list's first text, that fits as JSON; else None."""
    if type(simple) is list and simple:
        first = _shortened(simple[0], max_bytes - len(b"[]"))
        return None if first is None else [first]
    if type(simple) is not str or max_bytes < len(b'""'):
        return None
    text = simple[:max_bytes]
    # JSON writes a character in one to six bytes: cut in proportion, and once more for certain.
    for _ in range(3):
        size = len(orjson.dumps(text))
        if size <= max_bytes:
            return text
        text = text[: len(text) * (max_bytes - len(b'""')) // size]
    return text[: max_bytes // 6 - 1] if len(orjson.dumps(text)) > max_bytes else text


def _type_name(value: Any) -> str:
    kind = type(value)
    try:
        # `__module__` may be any object, and a metaclass may make either raise.
        module = kind.__module__ if type(kind.__module__) is str else "?"
        name = f"<{module}.{kind.__qualname__}>"
    except Exception:  # noqa: BLE001  # see above
        name = "<object>"
    return _plain_text(name, _MAX_STAND_IN_CHARS)[0]
