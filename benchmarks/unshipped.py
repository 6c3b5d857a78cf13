"""A real log without a database: what it would have shipped is swallowed."""

from auditlog import AuditLog
from auditlog.settings import Settings
from auditlog.sink.buffer import Batch
from auditlog.sink.writer import Writer


class Unshipped(AuditLog):
    """A real log up to the database: records are encoded, queued, batched and counted."""

    def __init__(self) -> None:
        super().__init__("postgresql://nowhere.invalid/", settings=Settings())

    def _make_chain(self) -> None:
        super()._make_chain()
        self._writer = Writer(self.settings, self._buffer, _Swallow(), self.reporter)


class _Swallow:
    """A target that takes every batch and keeps none."""

    async def write(self, batch: Batch) -> None:
        pass

    async def close(self) -> None:
        pass

    def hang_up(self) -> bool:
        return False
