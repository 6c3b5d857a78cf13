"""What a quota counts of a request: whether it does, how much, when, and what is given back. Pure.

Requests are paid for before they are served. Bytes and time are known when a request is over, as a
user may be, whom only a handler finds out: they are charged then.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from auditlog.capture.in_flight import InFlight
from auditlog.capture.outcomes import CANCELLED, CLIENT_DISCONNECT, SERVER_ERROR
from auditlog.capture.policy.globs import path_matcher
from auditlog.capture.web.exchange import AsgiExchange
from auditlog.quota.model import Counts, Quota
from auditlog.records import Protocol

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Of HTTP, those that change nothing (RFC 9110, section 9.2.1)."""
MAX_TABLES: Final = 1024
"""How many sets of quotas are kept ready, about one for each tenant that has its own."""
GRPC: Final = int(Protocol.GRPC)
_AFTERWARDS: Final = frozenset({Counts.BYTES, Counts.EXECUTION_MS})
_NS_PER_MS: Final = 1_000_000
_GRPC_CANCELLED: Final = 1
# What a status code of gRPC is in HTTP: google/rpc/code.proto of github.com/googleapis/googleapis.
_HTTP_STATUS_OF_CODE: Final = {
    0: 200,
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}


class Counting:
    """One quota, ready to be asked about requests. Immutable."""

    __slots__ = ("_covers_path", "_globs", "_methods", "_refunds", "counts", "quota")

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.counts = quota.counts
        self._methods = frozenset(quota.methods)
        self._covers_path = path_matcher(quota.routes) if quota.routes else None
        self._globs = tuple((glob, path_matcher((glob,))) for glob in quota.routes)
        self._refunds = frozenset(quota.refunds)

    def covers(self, method: str, path: str, is_write: bool) -> bool:  # as `Traffic` has them
        """Tell whether a request of this kind is counted at all."""
        if self._methods and method.upper() not in self._methods:
            return False
        if self._covers_path is not None and not self._covers_path(path):
            return False
        return is_write or self.counts is not Counts.WRITES

    def is_paid_before(self, user_id: str | None) -> bool:
        """Tell whether a request is paid for before it is served; the others are afterwards."""
        if self.counts is Counts.AUTHENTICATED:
            return bool(user_id)
        return self.counts not in _AFTERWARDS

    def route(self, path: str, protocol: int) -> str | None:
        """Return what a quota per route takes for one: a glob, or the method of an RPC."""
        if protocol == GRPC:
            return path
        return next((glob for glob, matches in self._globs if matches(path)), None)

    def units(self, request: InFlight) -> int:
        """Return how much is to be charged for a request that is over."""
        if self.counts is Counts.BYTES:
            return _bytes_of(request)
        if self.counts is Counts.EXECUTION_MS:
            # Rounded up, for a thousand requests of half a millisecond are not for nothing.
            return -((request.started_ns - request.ended_ns) // _NS_PER_MS)
        if self.counts is Counts.AUTHENTICATED and not request.identity()[0]:
            return 0
        return 1

    def is_refunded(self, request: InFlight) -> bool:
        """Tell whether a request that is over does not count, by outcome or by status."""
        is_refunded = _outcome_of(request) in self._refunds
        return is_refunded or not self._refunds.isdisjoint(_statuses_of(request))


class Countings:
    """Makes quotas ready, once for each set of them that is asked for."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: dict[int, tuple[tuple[Quota, ...], tuple[Counting, ...]]] = {}

    def of(self, quotas: tuple[Quota, ...]) -> tuple[Counting, ...]:
        """Return them in the same order; of the same tuple, at the cost of a look-up."""
        made = self._made.get(id(quotas))
        if made is None:
            # The table holds what it was asked about: no other tuple has the same id meanwhile.
            made = quotas, tuple(map(counting_of, quotas))
            if len(self._made) >= MAX_TABLES:
                self._made.clear()
            self._made[id(quotas)] = made
        return made[1]


@lru_cache(maxsize=4096)
def counting_of(quota: Quota) -> Counting:
    """Make one ready, or return the one that is."""
    return Counting(quota)


def _outcome_of(request: InFlight) -> str:
    """Return the outcome; what only a client has said is that it left, or it would pay nothing."""
    if request.refused:
        # A client that got no answer for want of an audit row was refused by the server.
        return SERVER_ERROR
    if isinstance(request, AsgiExchange):
        # Any code may be in the close frame of a WebSocket's client: 1011, or a server's 1012.
        is_clients = request.disconnected
    else:
        # A server that stops says UNAVAILABLE.
        is_clients = request.outcome == CANCELLED and request.status == _GRPC_CANCELLED
    return CLIENT_DISCONNECT if is_clients else request.outcome


def _bytes_of(request: InFlight) -> int:
    # Servers drop the body of an answer to HEAD.
    return request.bytes_in + (0 if request.method == "HEAD" else request.bytes_out)


def _statuses_of(request: InFlight) -> Iterator[str]:
    """Yield the status as it is, of an RPC also as HTTP has it: 401 may stand for both."""
    status = request.status
    if status is not None:
        yield str(status)
        if request.protocol == GRPC:
            yield str(_HTTP_STATUS_OF_CODE.get(status))
