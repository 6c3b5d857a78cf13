"""The definitions in force: the application's own, and over them what the database says.

Read in any thread; replaced as a whole by whoever reads the database. A row that is no quota is
reported, and the application's definition of that name, if there is one, applies.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from typing import Any

from auditlog.capture.recorder import Recorder
from auditlog.errors import QuotaError
from auditlog.quota.definitions.defined import Definitions
from auditlog.quota.definitions.file import load
from auditlog.quota.definitions.rows import quota_from
from auditlog.quota.model import Quota

_Row = Mapping[str, Any]


class Catalogue:
    """What is limited, as known at the moment.

    Args:
        recorder: Where invalid rows are reported.
        quotas: From the code.
        file: A TOML file with more.

    Raises:
        QuotaError: one cannot work, or is defined twice.
    """

    def __init__(
        self, recorder: Recorder, quotas: Iterable[Quota], file: str | os.PathLike[str] | None
    ) -> None:
        self._recorder = recorder
        self._own = (*quotas, *(() if file is None else load(os.fspath(file))))
        self.definitions = Definitions(self._own)
        self.read_once: Future[None] = Future()
        """Done when the database has said for the first time what it knows."""
        self._heard: asyncio.Future[None] | None = None
        self._rows: Sequence[_Row] = ()
        self._stored: dict[tuple[str, str], tuple[_Row, Quota | None]] = {}

    def read(self, rows: Sequence[_Row]) -> None:
        """Take over the rows of `logstore.quotas`, all of them; called by one at a time."""
        if rows != self._rows:
            self._rows = rows
            # A quota that is what it was stays the same object, by which others know it.
            self._stored = {_identity(row): (row, self._quota(row)) for row in rows}
            stored = [quota for _, quota in self._stored.values() if quota is not None]
            self.definitions = Definitions(self._own, stored)
        if not self.read_once.done():
            self.read_once.set_result(None)

    async def heard(self, timeout_s: float) -> None:
        """Wait for `read_once`, for so many seconds at most."""
        heard = self._heard
        if heard is None or heard.get_loop() is not asyncio.get_running_loop():
            # One for all who wait: what is chained to `read_once` stays there until it is done.
            heard = self._heard = asyncio.wrap_future(self.read_once)
        await asyncio.wait({heard}, timeout=timeout_s)

    def heard_in_thread(self, timeout_s: float) -> None:
        """Do what `heard` does, from a thread without an event loop; blocks."""
        wait({self.read_once}, timeout_s)

    def reset(self) -> None:
        """In a child process: somebody else may just have been setting it."""
        self.read_once = Future()
        self._heard = None

    def _quota(self, row: _Row) -> Quota | None:
        known = self._stored.get(_identity(row))
        if known is not None and known[0] == row:
            return known[1]
        try:
            return quota_from(row)
        except QuotaError as error:
            self._recorder.reporter.report("auditlog.quota_invalid", str(error))
            return None


def _identity(row: _Row) -> tuple[str, str]:
    return row["quota_id"], row["instance_id"]
