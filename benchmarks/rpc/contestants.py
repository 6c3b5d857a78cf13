"""The interceptors under measurement: ours, and others set up as their documentation advises.

The others ship nothing: OpenTelemetry's exporter only counts, and only when it is told to; the
counters of py-grpc-prometheus stay in the process. It has no interceptor for grpc.aio, whose
server refuses the one it has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from auditlog import AuditLog
from benchmarks.competitors import HOLD, installed

AIO, THREADED = "aio", "threaded"
BARE, OURS = "bare server", "auditlog"

Interceptor: TypeAlias = tuple[Any, Callable[[], int]]
"""It, and a function that empties what it holds and says how many calls it saw in all."""


@dataclass(frozen=True)
class Competitor:
    """Somebody else's interceptor."""

    name: str
    distribution: str
    module: str
    make: Callable[[str], Interceptor]
    kinds: tuple[str, ...]
    """The servers that it works with."""

    def works_with(self, kind: str) -> bool:
        """Whether it is there, and made for such a server."""
        return kind in self.kinds and installed(self.module)


def contestants(kind: str) -> list[str]:
    """Name all that can be measured with a kind of server: bare, ours, the competitors."""
    ours = [OURS] if installed(f"auditlog.capture.grpc_{'aio' if kind == AIO else 'sync'}") else []
    return [BARE, *ours, *(each.name for each in COMPETITORS if each.works_with(kind))]


def make(kind: str, name: str, audit: AuditLog) -> Interceptor:
    """Make the interceptor of that name; None for the bare server."""
    if name == OURS:
        return ours(kind, audit), lambda: audit.stats().submitted
    for competitor in COMPETITORS:
        if competitor.name == name:
            return competitor.make(kind)
    return None, int


def ours(kind: str, audit: AuditLog) -> Any:
    """Make ours."""
    if kind == AIO:
        from auditlog.capture import grpc_aio  # noqa: PLC0415  # one of the two is enough

        return grpc_aio.AuditInterceptor(audit)
    from auditlog.capture import grpc_sync  # noqa: PLC0415  # one of the two is enough

    return grpc_sync.AuditInterceptor(audit)


def opentelemetry(kind: str) -> Interceptor:
    """Make OpenTelemetry's interceptor, with one span a call, held until it is asked for."""
    from opentelemetry.instrumentation.grpc import (  # noqa: PLC0415  # an extra
        aio_server_interceptor,
        server_interceptor,
    )
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class CountingExporter(SpanExporter):
        count = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            self.count += len(spans)
            return SpanExportResult.SUCCESS

    exporter = CountingExporter()
    processor = BatchSpanProcessor(exporter, **HOLD)
    provider = TracerProvider()
    provider.add_span_processor(processor)
    make = aio_server_interceptor if kind == AIO else server_interceptor

    def flush() -> int:
        processor.force_flush()
        return exporter.count

    return make(tracer_provider=provider), flush


def prometheus(_kind: str) -> Interceptor:
    """Make py-grpc-prometheus's interceptor, with its defaults: counters, no histogram."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415  # an extra
    from py_grpc_prometheus.prometheus_server_interceptor import (  # noqa: PLC0415
        PromServerInterceptor,
    )

    registry = CollectorRegistry()
    interceptor = PromServerInterceptor(registry=registry)

    def count() -> int:
        samples = (sample for metric in registry.collect() for sample in metric.samples)
        handled = "grpc_server_handled_total"
        return int(sum(sample.value for sample in samples if sample.name == handled))

    return interceptor, count


COMPETITORS = (
    Competitor(
        "opentelemetry-instrumentation-grpc",
        "opentelemetry-instrumentation-grpc",
        "opentelemetry.instrumentation.grpc",
        opentelemetry,
        (AIO, THREADED),
    ),
    Competitor(
        "py-grpc-prometheus",
        "py-grpc-prometheus",
        "py_grpc_prometheus",
        prometheus,
        (THREADED,),
    ),
)
