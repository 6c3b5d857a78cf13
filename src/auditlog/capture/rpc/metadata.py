"""Metadata as grpcio gives it → raw header pairs, the form in which everything else takes headers.

Order and duplicates are kept. A `-bin` value is bytes and becomes base64, as it was on the wire.
Text is latin-1 where that can hold it, so that a reader sees what the handler saw. Never raises:
an item that is no pair of a name and a value is left out.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Any

_NAME = re.compile(r"[0-9a-z_.-]+")
_TEXT = re.compile(r"[ -~]*")


def raw_pairs(metadata: Iterable[Any] | None) -> list[tuple[bytes, bytes]]:
    """Return the pairs as bytes, names in lower case."""
    if not metadata:
        return []
    try:
        # All are texts in nearly every request, and then this takes half as long.
        return [(name.encode(), value.encode("latin-1")) for name, value in metadata]
    except Exception:  # noqa: BLE001  # trailing metadata is the application's own
        return [pair for item in metadata if (pair := _raw_pair(item)) is not None]


def is_legal(metadata: Iterable[Any]) -> bool:
    """Tell whether a server can send it: what it cannot send breaks the whole answer.

    The rules are those of https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
    """
    try:
        return all(
            _NAME.fullmatch(name) and (isinstance(value, bytes) or _TEXT.fullmatch(value))
            for name, value in metadata
        )
    except Exception:  # noqa: BLE001  # the application's own
        return False


def _raw_pair(item: Any) -> tuple[bytes, bytes] | None:
    try:
        name, value = item
        if isinstance(value, str):
            return name.encode(), _latin(value)
        return name.encode(), b64encode(value)
    except Exception:  # noqa: BLE001  # no metadata at all
        return None


def _latin(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace")
