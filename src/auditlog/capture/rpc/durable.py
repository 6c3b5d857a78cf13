"""RPCs whose row is kept before their answer: what both servers have in common.

`spool`: the row is handed over before the client can have the whole answer. `commit`: it is
committed by then, and one that says the RPC has begun was before the handler ran; a client whose
RPC cannot be recorded in time is told UNAVAILABLE. A status is thus written down just before it is
sent; what becomes of it otherwise is told in a late row.
"""

import asyncio
from math import ceil
from typing import Any, Final, NamedTuple

import grpc

from auditlog.capture.rpc.exchange import CLIENT_STREAM, SERVER_STREAM, UNARY, GrpcExchange
from auditlog.capture.rpc.status import DEADLINE_EXCEEDED
from auditlog.reporting import describe as describe_error

ONE_ANSWER: Final = frozenset({UNARY, CLIENT_STREAM})
ONE_REQUEST: Final = frozenset({UNARY, SERVER_STREAM})
NOT_CARRIED_OUT: Final = (
    "This call cannot be recorded in the audit trail at present, and was not carried out."
)
ANSWER_WITHHELD: Final = (
    "What became of this call could not be recorded in the audit trail in time, so its answer is"
    " withheld. It may have been carried out."
)
# https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback: servers say so in the
# trailing metadata, and a client whose policy has it try again does so then; never, if negative.
_PUSHBACK: Final = "grpc-retry-pushback-ms"


class DeadlineExceeded(asyncio.CancelledError):
    """The name that a late row gives to an RPC whose time was over when it had its row."""


class StatusReplaced(Exception):  # noqa: N818  # it is never raised
    """The name that a late row gives to an RPC whose status became another one on the way out."""


class Refusal(NamedTuple):
    """What a client gets in place of an answer that cannot be audited, as `abort` takes it."""

    code: Any
    details: str
    trailing_metadata: tuple[tuple[str, str], ...]


def not_carried_out(commit_timeout_s: float) -> Refusal:
    """Refuse before the handler runs: the call may be tried again when the log had time."""
    pushback = (_PUSHBACK, str(ceil(commit_timeout_s * 1000)))
    return Refusal(grpc.StatusCode.UNAVAILABLE, NOT_CARRIED_OUT, (pushback,))


WITHHELD: Final = Refusal(grpc.StatusCode.UNAVAILABLE, ANSWER_WITHHELD, ((_PUSHBACK, "-1"),))
"""In place of an answer: whoever tries again may do it twice.

All trailing metadata of the handler's is replaced: the details of a rich status belong to its code.
"""


class DurableExchange(GrpcExchange):
    """The half of an RPC that both servers share. Whoever mixes it in names its slots."""

    __slots__ = ()

    def release(self) -> None:
        """Ask the application's callables, but once."""
        if self.source is not None:
            GrpcExchange.release(self)

    def is_cut_short(self) -> bool:
        """Tell, of an RPC that is over, whether its client was gone before the status was sent."""
        raise NotImplementedError

    def late_error(self) -> BaseException | None:
        """Return what left the handler, if the server did not ask it to."""
        raise NotImplementedError

    def note_undecided(self, failure: Exception) -> None:
        """Say that the log could not tell whether a row is durable, which it is not, then."""
        self.capture.recorder.reporter.report(
            "auditlog.rpc_undecided",
            "whether the row of an RPC is durable cannot be told, it is taken for not durable:"
            f" {describe_error(failure)}",
        )

    def note_refusal(self) -> None:
        """Take note that the client gets no answer. Rows that come now are not waited for."""
        self.refused = True
        self.ticket = None

    def _finish_late(self, before: tuple[Any, ...], error: BaseException | None) -> None:
        """Add a row if the server has sent another status, or none, or somebody has said more."""
        foreseen, late_error = self.status, self.late_error()
        try:
            self.conclude(None)
        except Exception as failure:  # noqa: BLE001  # never an error of the RPC
            self.note_unreadable(failure)
        if self.status != foreseen and not self.refused:
            error = self._reason()
        GrpcExchange._finish_late(self, before, error or late_error)

    def _reason(self) -> BaseException:
        if not self.is_cut_short():
            return StatusReplaced()
        if self.status == DEADLINE_EXCEEDED:
            return DeadlineExceeded()
        return asyncio.CancelledError()
