"""`AuditLogCollector`: what `stats()` says, in Prometheus' words."""

import dataclasses

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from auditlog import AuditLog, Stats
from auditlog.metrics import AuditLogCollector
from auditlog.settings import Settings
from auditlog.sink.queue.stats import Health, HealthStatus, LossReason

NOWHERE = "host=127.0.0.1 port=1 dbname=nowhere"


@pytest.fixture
def audit() -> AuditLog:
    """A log that is never started: nothing of it touches a database."""
    return AuditLog(NOWHERE, settings=Settings())


def samples(audit: AuditLog) -> dict[str, float]:
    """Every sample of one scrape, by its name and label."""
    registry = CollectorRegistry()
    registry.register(AuditLogCollector(audit))
    text = generate_latest(registry).decode()
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_every_counter_is_there_from_the_start(audit: AuditLog) -> None:
    """An alert on an increase needs a first sample, for each reason of a loss as well."""
    found = samples(audit)
    assert {f'auditlog_dropped_total{{reason="{reason}"}}' for reason in LossReason} <= set(found)
    assert found.pop("auditlog_healthy") == 1.0
    assert set(found.values()) == {0.0}


def test_samples_are_the_stats(audit: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """One snapshot, each number under its name."""
    stats = Stats(
        submitted=100,
        written=50,
        queued=11,
        in_flight=9,
        spooled=8,
        dead_lettered=7,
        dropped_by_reason={"overflow": 12, "rejected": 3},
        queued_bytes=4096,
        batches=6,
        retries=5,
    )
    monkeypatch.setattr(audit, "stats", lambda: stats)
    degraded = Health(HealthStatus.DEGRADED, "reason", "remedy")
    monkeypatch.setattr(audit, "health", lambda: degraded)
    found = samples(audit)
    assert {name: value for name, value in found.items() if value} == {
        "auditlog_submitted_total": 100,
        "auditlog_written_total": 50,
        "auditlog_dead_lettered_total": 7,
        "auditlog_batches_total": 6,
        "auditlog_retries_total": 5,
        "auditlog_spooled_rows": 8,
        "auditlog_pending_rows": 20,
        "auditlog_pending_bytes": 4096,
        'auditlog_dropped_total{reason="overflow"}': 12,
        'auditlog_dropped_total{reason="rejected"}': 3,
    }
    assert found["auditlog_healthy"] == 0


def test_runway_is_told_of_partitioned_tables_only(
    audit: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table without partitions has no end in sight, and no sample."""
    monkeypatch.setattr(audit, "runways", lambda: {"logs": 86_400.5})
    found = samples(audit)
    assert {name: value for name, value in found.items() if "partition" in name} == {
        'auditlog_partition_runway_seconds{table="logs"}': 86_400.5
    }


def test_every_number_of_the_stats_is_exposed(
    audit: AuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that is added to `Stats` and forgotten here is noticed."""
    before = samples(audit)
    for field in dataclasses.fields(Stats):
        value = {"overflow": 1} if field.name == "dropped_by_reason" else 1
        stats = Stats(**{field.name: value})
        monkeypatch.setattr(audit, "stats", lambda stats=stats: stats)
        assert samples(audit) != before, field.name


def test_a_scrape_starts_nothing(audit: AuditLog) -> None:
    """Looking at a log does not begin its life."""
    samples(audit)
    assert audit._runner is None
