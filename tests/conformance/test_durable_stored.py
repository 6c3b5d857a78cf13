"""What is in the database, or on the disk, at the moment the client has its answer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from raw_client import Client
from servers import SERVERS, serving

Rows = Callable[[str], list[dict[str, Any]]]
NOWHERE = "postgresql://127.0.0.1:1/nowhere"
TARGETS = ("/read", "/stream", "/status?status=204", "/status?status=404", "/starlette/items/42")


@pytest.mark.parametrize("name", SERVERS)
def test_both_rows_are_committed_when_the_client_has_its_answer(
    name: str, trail_dsn: str, rows: Rows, tmp_path: Path
) -> None:
    """Nobody waits for them; the next statement sees them."""
    log = tmp_path / "log"
    with serving(name, trail_dsn, log, AUDITLOG_DURABILITY="commit") as running:
        for number, target in enumerate(TARGETS * 2):
            client = Client(running.address, f"commit-{name}-{number}")
            answer = client.ask(target)
            stored = [row["metadata"]["audit.stage"] for row in rows(client.request_id)]
            assert answer is not None
            assert answer.status != 503
            assert stored == ["received", "complete"], target


@pytest.mark.parametrize("name", SERVERS)
def test_without_a_database_requests_are_refused_and_exempt_ones_answered(
    name: str, tmp_path: Path
) -> None:
    """Under commit: no audit, no answer; the paths of the control are exempt by the policy."""
    settings = {"AUDITLOG_DURABILITY": "commit", "AUDITLOG_COMMIT_TIMEOUT_S": "0.5"}
    drain = {"AUDITLOG_DRAIN_TIMEOUT_S": "0.5"}
    with serving(name, NOWHERE, tmp_path / "log", **settings, **drain) as running:
        refused = Client(running.address, "refused").ask("/read")
        exempt = Client(running.address, "exempt").ask("/-/nothing/x")

    assert refused is not None
    assert exempt is not None
    assert (refused.status, json.loads(refused.body)["status"]) == (503, 503)
    assert (refused.all("retry-after"), exempt.status) == (["1"], 200)


@pytest.mark.parametrize("name", SERVERS)
def test_killed_server_leaves_the_row_in_its_spool(name: str, tmp_path: Path) -> None:
    """Killed when the client has its answer; the database was never there."""
    spool = tmp_path / "spool"
    settings = {"AUDITLOG_DURABILITY": "spool", "AUDITLOG_SPOOL_DIR": str(spool)}
    with serving(name, NOWHERE, tmp_path / "log", **settings) as running:
        ids = []
        for number, target in enumerate(TARGETS):
            client = Client(running.address, f"spooled-{number}")
            assert client.ask(target) is not None
            ids.append(client.request_id)
        running.kill()
    spooled = b"".join(path.read_bytes() for path in spool.rglob("*") if path.is_file())

    assert [each for each in ids if each.encode() not in spooled] == []
