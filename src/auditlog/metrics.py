"""`stats()` of a log and of quotas for Prometheus (extra `metrics`): read when they are scraped.

    from prometheus_client import REGISTRY
    from auditlog.metrics import AuditLogCollector, QuotasCollector

    REGISTRY.register(AuditLogCollector(audit))
    REGISTRY.register(QuotasCollector(quotas))

A process of several workers exposes one series each, as for any client metric.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from auditlog.log import AuditLog
from auditlog.quota.quotas import Quotas
from auditlog.sink.queue.stats import HealthStatus, LossReason


class AuditLogCollector(Collector):
    """The counters of one log, as metrics whose names begin with `auditlog_`."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def collect(self) -> Iterator[Metric]:
        """Read one snapshot and turn it into metric families."""
        stats = self._audit.stats()
        for name, text, value in (
            ("submitted", "Records handed over.", stats.submitted),
            ("written", "Rows committed to PostgreSQL.", stats.written),
            ("dead_lettered", "Rows set aside because they cannot be stored.", stats.dead_lettered),
            ("recovered", "Rows brought home that another process left.", stats.recovered),
            ("refused", "Requests refused for want of a committed row.", stats.refused),
            ("batches", "Transactions committed.", stats.batches),
            ("retries", "Attempts that failed and were repeated.", stats.retries),
        ):
            yield CounterMetricFamily(f"auditlog_{name}", text, value=value)
        dropped = CounterMetricFamily("auditlog_dropped", "Rows lost.", labels=["reason"])
        for reason in LossReason:
            # Every reason, also at 0: an alert on an increase needs a first sample.
            dropped.add_metric([reason.value], stats.dropped_by_reason.get(reason, 0))
        yield dropped
        yield GaugeMetricFamily(
            "auditlog_spooled_rows", "Rows on disk, waiting to be shipped.", value=stats.spooled
        )
        yield GaugeMetricFamily(
            "auditlog_pending_rows", "Rows accepted and not yet committed.", value=stats.pending
        )
        yield GaugeMetricFamily(
            "auditlog_pending_bytes", "Their size, as encoded.", value=stats.queued_bytes
        )
        runway = GaugeMetricFamily(
            "auditlog_partition_runway_seconds",
            "For how long from now on a table has partitions.",
            labels=["table"],
        )
        for table, seconds in self._audit.runways().items():
            runway.add_metric([table], seconds)
        yield runway
        healthy = self._audit.health().status is HealthStatus.OK
        yield GaugeMetricFamily(
            "auditlog_healthy", "1 when rows flow, 0 when not.", value=int(healthy)
        )


class QuotasCollector(Collector):
    """What an application's quotas have decided, as metrics named `auditlog_quota_*`."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas

    def collect(self) -> Iterator[Metric]:
        """Read one snapshot and turn it into metric families."""
        stats = self._quotas.stats()
        for name, text, allowed, refused in (
            ("decisions", "Spendings decided.", stats.allowed, stats.refused),
            (
                "unavailable",
                "Decided without the database, by on_unavailable.",
                stats.allowed_unavailable,
                stats.refused_unavailable,
            ),
        ):
            family = CounterMetricFamily(f"auditlog_quota_{name}", text, labels=["verdict"])
            family.add_metric(["allowed"], allowed)
            family.add_metric(["refused"], refused)
            yield family
        for name, text, value in (
            ("asks", "Decisions that waited for the database.", stats.asks),
            ("given_back", "Spendings taken back.", stats.given_back),
            ("charged", "Spendings added afterwards.", stats.charged),
            ("crossings", "Thresholds told.", stats.crossings),
            ("crossings_failed", "Calls of on_crossed that failed.", stats.crossings_failed),
        ):
            yield CounterMetricFamily(f"auditlog_quota_{name}", text, value=value)
