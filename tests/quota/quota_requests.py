"""Requests in flight, and quotas counted in this process, for the tests of what is between them."""

import asyncio
from typing import Any

import pytest

from asgi_driver import http_scope
from auditlog.capture.rpc.exchange import GrpcExchange
from auditlog.capture.shared import Capture
from auditlog.capture.web.http import HttpExchange
from auditlog.quota.admitting.admission import Admission, Traffic, admit, admit_in_thread
from auditlog.quota.model import Decision, Key, Quota
from auditlog.records import QuotaLogRecord
from auditlog.testing import MemoryQuotas, MemorySink


async def _nothing(*_: Any) -> None:
    """Neither receives nor sends."""


class Request(HttpExchange):
    """One whose end is told by the test."""

    __slots__ = ()

    def conclude(self, _error: BaseException | None) -> None:
        """Leave it as it is."""


class Desk:
    """Quotas, and requests that ask them.

    Args:
        quotas: What is limited.
        identify: Callables for user, tenant and organisation, as the audit middleware has them.
    """

    def __init__(self, *quotas: Quota, **identify: Any) -> None:
        self.sink = MemorySink()
        self.quotas = MemoryQuotas(self.sink, quotas)
        self._capture = Capture.of(self.sink, None, **identify)

    def request(self, **changes: Any) -> Request:
        """A request that has begun."""
        return Request(self._capture, http_scope(**changes), _nothing, _nothing)

    def rpc(self, full_method: str = "/shop.Orders/Place") -> GrpcExchange:
        """An RPC that has begun."""
        return GrpcExchange(self._capture, full_method, ())

    def usage(self, quota_id: str, subject: str = "", tenant: str = "default") -> int:
        """What is counted so far."""
        quota = self.quotas.definitions.get(quota_id, tenant)
        assert quota is not None
        return self.quotas.look_in_thread(quota, Key(quota_id, tenant, subject)).usage

    def refusals(self) -> list[QuotaLogRecord]:
        """The rows of what was refused."""
        rows = [row for row in self.sink.records if isinstance(row, QuotaLogRecord)]
        return [row for row in rows if not row.allowed]


def traffic(holder: Any, **changes: Any) -> Traffic:
    """What an HTTP request asks with."""
    asked = Traffic("GET", holder.path, False, "192.0.2.7", None, holder)
    return asked._replace(**changes)


def ended(request: Request, status: int = 200, outcome: str = "ok", **facts: Any) -> None:
    """Let a request be over, with what became of it."""
    request.status, request.outcome = status, outcome
    for name, value in facts.items():
        setattr(request, name, value)
    request.finish(None)


def ids(decisions: list[Decision]) -> list[str]:
    """Whose decisions they are."""
    return [decision.quota.id for decision in decisions]


async def in_thread(desk: Desk, asked: Any) -> Admission:
    """As a threaded server does."""
    return await asyncio.to_thread(admit_in_thread, desk.quotas, asked)


async def on_loop(desk: Desk, asked: Any) -> Admission:
    """As a server on an event loop does."""
    return await admit(desk.quotas, asked)


BOTH = pytest.mark.parametrize("ask", [on_loop, in_thread])
