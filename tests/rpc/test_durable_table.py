"""Every case of the table where rows are kept before the answer: the client must not notice."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from rpc_case import Row
from rpc_client import Client, Seen
from rpc_durable_stage import StrictStage, strict_stage
from rpc_durable_trail import STRICT
from rpc_table import ROWS
from rpc_trail import metadata

CANCELLED, DEADLINE = 1, 4
NEVER_DESERIALIZED = {
    "aio": ("garbage",),
    "threaded": ("garbage", "deserializer that gives None"),
}
# The handler goes on after its row, and fails.
FAILS_AFTER_ITS_ABORT = ("abort that is caught, then an error", "abort twice")
SETS_CODE_AFTER_ITS_ABORT = "abort that is caught, then set_code"


@pytest.fixture(scope="module")
def strict_stages() -> Iterator[dict[tuple[str, str], StrictStage]]:
    with ExitStack() as stack:
        yield {
            (server, durability): stack.enter_context(strict_stage(server, durability))
            for server in ("aio", "threaded")
            for durability in STRICT
        }


@pytest.mark.parametrize("durability", STRICT)
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row_is_there_when_the_client_has_its_answer(
    row: Row, durability: str, strict_stages: dict[tuple[str, str], StrictStage]
) -> None:
    """And says what the client saw, which is what it sees of a server without us."""
    stage = strict_stages[row.server, durability]
    client = Client(stage.audited)

    seen = row.talk(client)
    by_then = stage.trail.stages_of(client.request_id)
    found = stage.trail.wait_for_stage(client.request_id, "complete")

    if row.case.comparable:
        assert seen == row.talk(Client(stage.bare))
    stages = stage.trail.stages_of(client.request_id)
    assert stages.count("received") == (durability == "commit" and _has_handler(row))
    if not _was_answered(row, seen):
        # The last word is that there was none.
        is_derived = metadata(found)["audit.status_source"] == "derived"
        assert is_derived or "late" in stages
        return
    assert "complete" in by_then
    assert found.response_status == _status_of(row, seen)
    if row.server == "aio" and row.case.name in FAILS_AFTER_ITS_ABORT:
        late = stage.trail.wait_for_stage(client.request_id, "late")
        assert metadata(late)["audit.outcome"] == "server_error"
    else:
        assert "late" not in stages


def _has_handler(row: Row) -> bool:
    return row.kind[0] == "s" or row.case.name not in NEVER_DESERIALIZED[row.server]


def _was_answered(row: Row, seen: Seen) -> bool:
    """Has the server sent a status that was one?"""
    has_given_up = row.case.derived and seen.code in {CANCELLED, DEADLINE}
    makes_it_up = row.case.row is ... and row.case.name != SETS_CODE_AFTER_ITS_ABORT
    return not (makes_it_up or has_given_up)


def _status_of(row: Row, seen: Seen) -> int:
    """What the row says; of a caught abort, only a row that is made before it knows the code."""
    if row.case.row is None or row.case.name == SETS_CODE_AFTER_ITS_ABORT:
        return seen.code
    return int(row.case.row)
