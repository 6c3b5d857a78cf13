"""Status codes of gRPC → numbers and outcomes, in one table. Knows nothing of grpcio.

The numbers are those of https://grpc.github.io/grpc/core/md_doc_statuscodes.html. What a handler
sets may be a member of `grpc.StatusCode`, a number, or anything else: the server has the last word
on what that means, and the two servers of grpcio differ in it.
"""

from typing import Any, Final

from auditlog.capture.outcomes import CANCELLED as WAS_CANCELLED
from auditlog.capture.outcomes import CLIENT_ERROR, DEADLINE, DENIED, OK, SERVER_ERROR
from auditlog.capture.outcomes import UNKNOWN as OUTCOME_UNKNOWN

SUCCESS: Final = 0
CANCELLED: Final = 1
UNKNOWN: Final = 2
DEADLINE_EXCEEDED: Final = 4
UNIMPLEMENTED: Final = 12
INTERNAL: Final = 13
UNAVAILABLE: Final = 14

_BY_CODE: Final = (
    OK,  # OK
    WAS_CANCELLED,  # CANCELLED: by the client, which may just have gone
    SERVER_ERROR,  # UNKNOWN: what grpcio sends for an exception
    CLIENT_ERROR,  # INVALID_ARGUMENT
    DEADLINE,  # DEADLINE_EXCEEDED
    CLIENT_ERROR,  # NOT_FOUND
    CLIENT_ERROR,  # ALREADY_EXISTS
    DENIED,  # PERMISSION_DENIED
    CLIENT_ERROR,  # RESOURCE_EXHAUSTED: a quota, like HTTP's 429
    CLIENT_ERROR,  # FAILED_PRECONDITION
    CLIENT_ERROR,  # ABORTED: a conflict that the client is to solve, like HTTP's 409
    CLIENT_ERROR,  # OUT_OF_RANGE
    CLIENT_ERROR,  # UNIMPLEMENTED: mostly a method that is not there, like HTTP's 404
    SERVER_ERROR,  # INTERNAL
    SERVER_ERROR,  # UNAVAILABLE
    SERVER_ERROR,  # DATA_LOSS
    DENIED,  # UNAUTHENTICATED
)


def outcome_of(status: int | None) -> str:
    """Sort a status code's number."""
    if status is None or not 0 <= status < len(_BY_CODE):
        return OUTCOME_UNKNOWN
    return _BY_CODE[status]


def number_of(code: Any, *, largest_int: int | None) -> int:
    """Return the number that the server puts on the wire for what a handler has set.

    Args:
        code: A `grpc.StatusCode`, or whatever stands in its place.
        largest_int: Numbers up to this one are taken as they are; None: none is.
    """
    if isinstance(code, int):
        return code if largest_int is not None and 0 <= code <= largest_int else UNKNOWN
    try:
        number = code.value[0]
    except Exception:  # noqa: BLE001  # foreign code; the server sends UNKNOWN for it as well
        return UNKNOWN
    return number if type(number) is int and 0 <= number < len(_BY_CODE) else UNKNOWN
