"""What grpcio's threaded server knows of an RPC and does not tell.

It is in private attributes, the same in grpcio 1.60 to 1.85. Everything here answers None where it
does not find what it knows, so that another grpcio costs certainty and nothing else: statuses are
derived then.
"""

import sys
from types import FrameType
from typing import Any, Final

_SERVER: Final = "grpc._server"
CANCELLED: Final = "cancelled"
"""What the server's state says of a client that has left."""
_CLIENT_STATES: Final = frozenset({"open", "closed", CANCELLED})


def state_of(context: Any) -> Any:
    """Return the server's own state of an RPC; None if there is none that can be understood."""
    state = getattr(context, "_state", None)
    known = (
        getattr(state, "client", None) in _CLIENT_STATES
        and type(getattr(state, "statused", None)) is bool
        and hasattr(state, "code")
    )
    return state if known else None


def has_lost_client(context: Any) -> bool:
    """Tell whether the client is known to have left."""
    return getattr(state_of(context), "client", None) == CANCELLED


def was_aborted(context: Any) -> bool | None:
    """Tell whether the handler has called `abort`."""
    aborted = getattr(getattr(context, "_state", None), "aborted", None)
    return aborted if type(aborted) is bool else None


def is_called_by_server() -> bool:
    """Tell whether the server itself calls what asks the caller, and not another interceptor."""
    try:
        return sys._getframe(3).f_globals.get("__name__") == _SERVER
    except ValueError:  # nobody calls: it is where a thread or a greenlet begins
        return False


def is_stopping() -> bool | None:
    """Tell, in a callback of the server's, whether the server is being stopped."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != _SERVER:
        frame = frame.f_back
    state = None if frame is None else frame.f_locals.get("state")
    stage = getattr(getattr(state, "stage", None), "value", None)
    return None if stage is None else bool(stage != "started")
