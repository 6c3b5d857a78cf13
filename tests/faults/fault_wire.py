"""PostgreSQL's protocol, as far as it tells at which stage of a batch a connection is.

Bytes go in, messages come out: each with its raw bytes, and the stage that begins with it. Format:
PostgreSQL documentation, "Message Formats"; only a client's first message has no type byte.
"""

import struct
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

_HEADER = struct.Struct(">ci")
_LENGTH = struct.Struct(">i")


class Stage(Enum):
    """A moment in the life of a connection that writes batches."""

    CONNECT = "connecting"
    STARTUP = "startup message"
    BEGIN = "BEGIN"
    LEDGER = "ledger row"
    MERGE = "merge of a replay"
    COPY_BEGIN = "COPY begins"
    COPY_DATA = "in the data of COPY"
    COPY_DONE = "end of the data"
    COPIED = "between COPY and COMMIT"
    COMMIT = "COMMIT"
    COMMITTED = "between COMMIT and its answer"


class Message(NamedTuple):
    """One message, or the beginning of a connection."""

    raw: bytes
    stage: Stage | None = None


class Splitter:
    """Cuts a stream of bytes into messages. One for each direction of a connection."""

    def __init__(self, *, of_client: bool) -> None:
        self._of_client = of_client
        self._started = not of_client
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take what was received, give the messages that are whole."""
        self._pending += data
        while (length := self._length()) is not None and len(self._pending) >= length:
            raw, self._pending = self._pending[:length], self._pending[length:]
            yield Message(raw, self._stage(raw))
            self._started = True

    def _length(self) -> int | None:
        if not self._started:
            return _LENGTH.unpack_from(self._pending)[0] if len(self._pending) >= 4 else None
        if len(self._pending) < _HEADER.size:
            return None
        return 1 + int(_HEADER.unpack_from(self._pending)[1])

    def _stage(self, raw: bytes) -> Stage | None:
        if not self._started:
            return Stage.STARTUP
        return _stage_of_client(raw) if self._of_client else _stage_of_server(raw)


def _stage_of_client(raw: bytes) -> Stage | None:
    kind, body = raw[:1], raw[_HEADER.size :]
    if kind == b"d":
        return Stage.COPY_DATA
    if kind == b"c":
        return Stage.COPY_DONE
    if kind not in b"QP":  # Query, Parse
        return None
    # A Parse begins with the statement's name.
    text = (body.partition(b"\0")[2] if kind == b"P" else body).strip().upper()
    for word, stage in _STATEMENTS.items():
        if word in text:
            return stage
    return None


_STATEMENTS = {
    b"INSERT INTO LOGSTORE.BATCHES": Stage.LEDGER,
    b"INSERT INTO LOGSTORE.LOGS": Stage.MERGE,
    b"COPY ": Stage.COPY_BEGIN,
    b"BEGIN": Stage.BEGIN,
    b"COMMIT": Stage.COMMIT,
}


def _stage_of_server(raw: bytes) -> Stage | None:
    if raw[:1] != b"C":  # CommandComplete
        return None
    tag = raw[_HEADER.size :]
    if tag.startswith(b"COPY"):
        return Stage.COPIED
    return Stage.COMMITTED if tag.startswith(b"COMMIT") else None
