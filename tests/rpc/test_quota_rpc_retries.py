"""Clients whose policy tries again: they come when it is worth it, or hear of it at once."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from rpc_client import Client
from rpc_quota_scene import OK, PUSHBACK, USED_UP, detail, limited
from rpc_scene import METHOD, echo

from auditlog.quota.model import Quota

DAYS_END = datetime(2026, 3, 2, tzinfo=UTC)
POLICY = {
    "maxAttempts": 3,
    "initialBackoff": "0.01s",
    "maxBackoff": "0.01s",
    "backoffMultiplier": 1,
    "retryableStatusCodes": ["RESOURCE_EXHAUSTED"],
}
SERVICE_CONFIG = json.dumps({"methodConfig": [{"name": [{}], "retryPolicy": POLICY}]})
RETRYING = (("grpc.service_config", SERVICE_CONFIG),)


def test_client_comes_again_when_the_period_has_ended(rpc_server: str) -> None:
    """Each attempt is an RPC of its own, with its row."""
    clocks = []

    def let_time_go_on(_: Any) -> None:
        clocks[0].advance(0.03)

    quota = Quota("calls", 1, "day")
    with limited(rpc_server, echo(rpc_server), quota, key=let_time_go_on, options=RETRYING) as ours:
        clocks.append(ours.quotas.counter)
        clocks[0].set_clock(DAYS_END)
        clocks[0].advance(-0.1)
        client = Client(ours.scene.channel)
        codes = [client.call(METHOD, "uu").code for _ in range(2)]
        rows = ours.trail.wait_for(6)  # two of them are the quota's own

    assert codes == [OK, OK]
    assert sorted(row.response_status or 0 for row in rows) == [OK, OK, USED_UP, USED_UP]


@pytest.mark.parametrize(
    ("left_s", "timeout_s", "pushback"),
    [(0.0125, 10, "13"), (20, 10, "-1"), (20, None, "20000"), (61, None, "-1"), (61, 600, "-1")],
)
def test_client_is_not_kept_waiting_in_vain(
    rpc_server: str, left_s: float, timeout_s: float | None, pushback: str
) -> None:
    """Beyond its deadline, or for more than a minute; a program is told the time in any case."""
    quota = Quota("calls", 0, "day")
    with limited(rpc_server, echo(rpc_server), quota) as ours:
        ours.quotas.counter.set_clock(DAYS_END)
        ours.quotas.counter.advance(-left_s)
        seen = ours.call(timeout=timeout_s)

    assert dict(seen.trailing)[PUSHBACK] == pushback
    assert detail(seen, RetryInfo).retry_delay.ToMicroseconds() >= left_s * 1e6


def test_client_that_would_wait_in_vain_hears_of_it_at_the_first_attempt(rpc_server: str) -> None:
    quota = Quota("calls", 0, "day")
    with limited(rpc_server, echo(rpc_server), quota, options=RETRYING) as ours:
        ours.quotas.counter.set_clock(DAYS_END)
        ours.quotas.counter.advance(-3600)
        assert ours.call().code == USED_UP
        ours.scene.running.stop(0)
        assert len(ours.trail.rows()) == 1
