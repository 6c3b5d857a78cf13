"""The served application behind logs whose rows become durable when a request says so.

Its header `x-durable` lists what the waits of the request end with, one after the other: `yes`,
`no`, or `gate` for what a client lets go on. `/-/stages/ID` tells which rows of it there are.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from served import _answer, _gate, bare
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from auditlog import AuditMiddleware, Level, Policy, Rule, Settings
from auditlog.capture.context import current
from auditlog.capture.exchange import Exchange
from auditlog.testing import MemorySink
from auditlog.ticket import Ticket

POLICY = Policy((Rule(name="control", paths=("/-/**",), level=Level.NONE),))


class Trail(MemorySink):
    """A sink whose waits end as the request asks."""

    def __init__(self) -> None:
        super().__init__(Settings(durability=os.environ["DURABILITY"], spool_dir="/nowhere"))  # type: ignore[arg-type]  # a literal
        self._ends: dict[int, tuple[Ticket, Iterator[str]]] = {}

    async def durable(self, ticket: Ticket) -> bool:
        exchange = current.get()
        assert isinstance(exchange, Exchange)
        asked = dict(exchange.raw_headers).get(b"x-durable", b"").decode()
        # The ticket is kept: another one may have its number later.
        _, ends = self._ends.setdefault(id(ticket), (ticket, iter(asked.split(","))))
        end = next(ends, "yes")
        if end == "gate":
            await _gate(exchange.source)
        return end != "no"

    def stages(self, request_id: str) -> list[str | None]:
        """The stages of a request's rows; None for the one row of a request."""
        metadata = [record.metadata or {} for record in self.records]  # type: ignore[union-attr]
        return [
            each.get("audit.stage")
            for each in metadata
            if each.get("audit.request_id") == request_id
        ]


_trail = Trail()


async def _length_then_nothing(_scope: Any, _receive: Any, send: Any) -> None:
    """As Starlette's BaseHTTPMiddleware does: the end is a message of its own."""
    headers = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"wh", "more_body": True})
    await send({"type": "http.response.body", "body": b"le", "more_body": True})
    await send({"type": "http.response.body"})


async def _file(_scope: Any, _receive: Any, send: Any) -> None:
    headers = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"wh", "more_body": True})
    await send({"type": "http.response.body", "body": b"le"})


async def _broken(_request: Request) -> Response:
    raise RuntimeError("broken")


_starlette = Starlette(routes=[Route("/outer/broken", _broken)])
# Inside of Starlette's own ServerErrorMiddleware, which answers for what it raises.
_starlette.add_middleware(AuditMiddleware, audit=_trail, policy=POLICY)
_OWN: dict[str, Any] = {"/length": _length_then_nothing, "/file": _file}


async def _with_gate(scope: Any, receive: Any, send: Any) -> None:
    path = scope.get("path", "")
    if path.startswith("/-/stages/"):
        stages = _trail.stages(path.rpartition("/")[2])
        await _answer(send, 200, json.dumps(stages).encode())
    elif path.startswith("/after"):
        # What it does when all has been sent goes on until a client says so.
        inner = {**scope, "path": path.removeprefix("/after")}
        await _with_gate(inner, receive, send)
        await _gate(scope)
    else:
        await _OWN.get(path, bare)(scope, receive, send)


_audited = AuditMiddleware(_with_gate, audit=_trail, policy=POLICY)


async def app(scope: Any, receive: Any, send: Any) -> None:
    outer = scope.get("path", "").startswith("/outer")
    await (_starlette if outer else _audited)(scope, receive, send)
