"""A real log without a database: what it would have shipped is swallowed."""

from auditlog import AuditLog
from auditlog.settings import Settings
from auditlog.sink.queue.batch import Batch


class Unshipped(AuditLog):
    """A real log up to the database: records are encoded, queued, batched and counted."""

    def __init__(self) -> None:
        super().__init__("postgresql://nowhere.invalid/", settings=Settings())

    def _make_chain(self) -> None:
        super()._make_chain()
        self._chain.target.write = _swallow  # type: ignore[method-assign]


async def _swallow(_batch: Batch) -> None:
    """Take every batch, and keep none."""
