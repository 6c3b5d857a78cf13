"""Secrets in JSON: named fields at any depth, and what texts in it hold.

Takes any Python value and gives a copy that shows nothing of what stands under a secret name;
never changes the value, never consumes an iterator. Whatever the sink would turn into an object
(dataclasses, named tuples) is looked into by its fields' names. Depth and number of nodes are
bounded; what lies beyond is hidden, because nothing is known of it.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from auditlog.capture.keyed_hash import REDACTED, Mask
from auditlog.capture.secret_names import SecretNames

MAX_DEPTH = 64
MAX_NODES = 20_000


class JsonRedactor:
    """Redacts values; `redact_text` is what every text in them is given to."""

    def __init__(self, names: SecretNames, mask: Mask, redact_text: Callable[[str], str]) -> None:
        self.verdicts = names.fields
        self.mask = mask
        self.redact_text = redact_text

    def redact(self, value: object) -> Any:
        """Return a redacted copy. May raise on hostile objects: the caller hides the whole."""
        return _Walk(self).value(value, 0)


class _Walk:
    """One pass over one value; counts nodes, so that circles and endless sequences end."""

    __slots__ = ("_nodes_left", "_redactor")

    def __init__(self, redactor: JsonRedactor) -> None:
        self._redactor = redactor
        self._nodes_left = MAX_NODES

    def value(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return self._text(value)
        if value is None or kind is int or kind is float or kind is bool:
            return value
        self._nodes_left -= 1
        if depth > MAX_DEPTH or self._nodes_left < 0:
            return REDACTED
        try:
            return self._compound(value, depth)
        except Exception:  # noqa: BLE001  # foreign code: items, fields, iteration
            return REDACTED

    def _compound(self, value: Any, depth: int) -> Any:
        if isinstance(value, enum.Enum):
            return self.value(value.value, depth + 1)
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(bytes(value))
        items = _named_items(value)
        if items is not None:
            return self._mapping(items, depth)
        return self._items(value, depth) if isinstance(value, Sequence | Set) else value

    def _mapping(self, items: list[tuple[Any, Any]], depth: int) -> dict[Any, Any]:
        return {key: self._field(key, value, depth) for key, value in items}

    def _field(self, key: object, value: Any, depth: int) -> Any:
        self._nodes_left -= 1
        redactor = self._redactor
        if isinstance(key, str):
            secret = redactor.verdicts[str.__str__(key)]
        elif isinstance(key, bytes):
            secret = redactor.verdicts[key.decode("latin-1")]
        else:
            # A name that is no name cannot be judged, but for the numbers that count entries.
            secret = not isinstance(key, int)
        return redactor.mask(value) if secret else self.value(value, depth + 1)

    def _items(self, values: Any, depth: int) -> list[Any]:
        items = []
        for value in values:
            if self._nodes_left < 0:
                items.append(REDACTED)
                break
            self._nodes_left -= 1
            items.append(self.value(value, depth + 1))
        return items

    def _bytes(self, data: bytes) -> Any:
        """The sink stores bytes as the text they are."""
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return data
        return self._text(text)

    def _text(self, text: str) -> str:
        # jsonb has no NUL (SQLSTATE 22P05).
        return self._redactor.redact_text(text).replace("\0", "\ufffd")


def _named_items(value: Any) -> list[tuple[Any, Any]] | None:
    """The entries of whatever has named ones, at this instant; None for all else."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None
