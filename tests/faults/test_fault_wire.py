"""The stages of a batch are told from the messages, however the bytes come in."""

import itertools
import struct

import pytest
from fault_wire import Splitter, Stage


def message(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack(">i", 4 + len(body)) + body


CLIENT = (
    (message(b"", b"\0\3\0\0user\0me\0\0"), Stage.STARTUP),
    (message(b"p", b"secret\0"), None),
    (message(b"Q", b"\n    BEGIN;\n SET LOCAL statement_timeout = 1\0"), Stage.BEGIN),
    (message(b"P", b"\0INSERT INTO logstore.batches (batch_id) ...\0"), Stage.LEDGER),
    (message(b"S"), None),
    (message(b"Q", b"COPY logstore.logs (instance_id) ...\0"), Stage.COPY_BEGIN),
    (message(b"d", b"a row that says COMMIT"), Stage.COPY_DATA),
    (message(b"c"), Stage.COPY_DONE),
    (message(b"P", b"\0INSERT INTO logstore.logs (instance_id) ...\0"), Stage.MERGE),
    (message(b"Q", b"COMMIT\0"), Stage.COMMIT),
    (message(b"X"), None),
)
SERVER = (
    (message(b"R", b"\0\0\0\0"), None),
    (message(b"C", b"BEGIN\0"), None),
    (message(b"C", b"COPY 7\0"), Stage.COPIED),
    (message(b"C", b"COMMIT\0"), Stage.COMMITTED),
    (message(b"Z", b"I"), None),
)


@pytest.mark.parametrize(
    ("messages", "of_client"), [(CLIENT, True), (SERVER, False)], ids=["client", "server"]
)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_messages_are_found_in_any_pieces(
    messages: tuple[tuple[bytes, Stage | None], ...], size: int, *, of_client: bool
) -> None:
    splitter = Splitter(of_client=of_client)
    stream = b"".join(raw for raw, _ in messages)
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    found = itertools.chain.from_iterable(map(splitter.feed, pieces))
    assert [(each.raw, each.stage) for each in found] == list(messages)
