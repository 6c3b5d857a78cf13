"""What a scenario is: one request by one of the clients, and the rows that it must leave."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from auditlog.demo.client import Client
from auditlog.demo.compare import HTTP
from auditlog.demo.rpc_client import RpcClient
from auditlog.records import Protocol


class Clients(NamedTuple):
    """The clients of one request to one server."""

    http: Client
    rpc: RpcClient


Perform: TypeAlias = Callable[[Clients], Awaitable[int | None]]
"""Returns the status that the client saw, None where it did not stay to see one."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of request, and how often it comes among the others."""

    name: str
    weight: int
    perform: Perform
    due: tuple[Protocol, ...] = (HTTP,)
    """The rows that it must leave."""
