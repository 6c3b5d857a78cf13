"""The kinds of quotas: what is counted, for whom, and what is decided without the database."""

from enum import StrEnum
from typing import Literal, TypeAlias

MAX_UNITS = 2**53 - 1
"""The largest limit, and the largest amount of one spending: what JSON carries without loss."""
MAX_PERCENT = 1_000
REFUNDS = ("server_error", "cancelled", "401", "429")
"""What is given back where a quota says nothing else."""

Policy: TypeAlias = Literal["open", "closed"]


class Counts(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    AUTHENTICATED = "authenticated"
    """Requests whose user is known."""
    WRITES = "writes"
    """Requests of a method that may change something (RFC 9110, section 9.2.1)."""
    BYTES = "bytes"
    """Of the bodies, in and out; charged when the request is over."""
    EXECUTION_MS = "execution_ms"
    """Milliseconds from the beginning to the end of a request, charged when it is over."""
    REPORTED = "reported"
    """What handlers spend."""


class Per(StrEnum):
    """Whose usage is added up, within a tenant."""

    TENANT = "tenant"
    ORGANISATION = "organisation"
    USER = "user"
    KEY = "key"
    """An API key, as the application names it; stored as a hash."""
    ROUTE = "route"
    """The glob of the quota's `routes` that matches; of gRPC, the method."""
    ADDRESS = "address"
    """The client's address; of IPv6 the network of 64 bits."""
