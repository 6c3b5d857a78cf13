"""The middlewares that capture is compared with, each set up as its documentation advises.

Neither ships anything: OpenTelemetry's exporter only counts, structlog's stream goes nowhere.
"""

import importlib.util
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

HOLD: dict[str, Any] = {
    "max_queue_size": 1 << 20,
    "max_export_batch_size": 1 << 20,
    "schedule_delay_millis": 3_600_000,
}
INFO = 20


@dataclass(frozen=True)
class Competitor:
    """Somebody else's middleware."""

    name: str
    distribution: str
    module: str
    add_to: Callable[[Starlette, bool], Callable[[], int]]
    """Adds it; gives a function that empties what it holds and says how much there was in all.

    The second argument: whether to hold everything until then, so that no thread exports meanwhile.
    """
    aim: float
    """How many times cheaper ours ought to be."""

    @property
    def there(self) -> bool:
        """Whether it is there to be measured."""
        return installed(self.module)


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def with_opentelemetry(app: Starlette, held: bool) -> Callable[[], int]:
    """Add OpenTelemetry's middleware with one span a request and no metrics.

    Returns:
        A function that flushes what is held, and returns how many spans there were in all.
    """
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415
    from opentelemetry.metrics import NoOpMeterProvider  # noqa: PLC0415
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
    processor = BatchSpanProcessor(exporter, **(HOLD if held else {}))
    provider = TracerProvider()
    provider.add_span_processor(processor)
    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        meter_provider=NoOpMeterProvider(),
        exclude_spans=["receive", "send"],
    )

    def flush() -> int:
        processor.force_flush()
        return exporter.count

    return flush


def with_structlog(app: Starlette, _held: bool) -> Callable[[], int]:
    """Add the access log that structlog's users write: `BaseHTTPMiddleware` and context variables.

    The logger has what structlog's chapter on performance advises: bytes, orjson, a filter.

    Returns:
        A function that returns how many lines there were in all.
    """
    import orjson  # noqa: PLC0415  # beside its user
    import structlog  # noqa: PLC0415  # an extra

    stream = _Nowhere()
    logger = structlog.wrap_logger(
        structlog.BytesLogger(stream),  # type: ignore[arg-type]  # write and flush are enough
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(INFO),
    ).bind()
    app.add_middleware(_AccessLog, logger=logger, variables=structlog.contextvars)
    return lambda: stream.lines


class _AccessLog(BaseHTTPMiddleware):
    def __init__(self, app: Any, logger: Any, variables: Any) -> None:
        super().__init__(app)
        self._logger = logger
        self._variables = variables

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        started_ns = time.perf_counter_ns()
        self._variables.clear_contextvars()
        self._variables.bind_contextvars(
            request_id=request.headers.get("x-request-id") or str(uuid.uuid4()),
            method=request.method,
            path=request.url.path,
            client=request.client.host if request.client else None,
        )
        response = await call_next(request)
        self._logger.info(
            "request",
            status=response.status_code,
            duration_ms=(time.perf_counter_ns() - started_ns) / 1_000_000,
        )
        return response


class _Nowhere:
    def __init__(self) -> None:
        self.lines = 0

    def write(self, _line: bytes) -> None:
        self.lines += 1

    def flush(self) -> None:
        pass


MIDDLEWARES = (
    Competitor(
        "opentelemetry-instrumentation-asgi, one span",
        "opentelemetry-instrumentation-asgi",
        "opentelemetry.instrumentation.asgi",
        with_opentelemetry,
        aim=12,
    ),
    Competitor("structlog in BaseHTTPMiddleware", "structlog", "structlog", with_structlog, aim=15),
)
