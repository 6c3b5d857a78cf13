"""A deadline that was too short → told from a client that has changed its mind."""

# grpc-timeout is rounded up by as much as a hundredth, so a client may give up that much earlier
# than the server expects, and its cancellation takes its way (RFC 9113 has no word for the reason).
_SLACK_MS = 20
_SLACK_PARTS = 100
# grpcio's way to say that there is none: the threaded server has 292 billion years left.
_FOREVER_MS = 1e15


def is_deadline(deadline_ms: float | None) -> bool:
    """Tell a deadline from the time that is left when there is none."""
    return deadline_ms is not None and deadline_ms < _FOREVER_MS


def has_run_out(remaining_s: float | None, deadline_ms: int | None) -> bool:
    """Tell, when an RPC was cut off, whether that was its deadline's doing.

    Args:
        remaining_s: What the server then had left.
        deadline_ms: What there was in the beginning.
    """
    if remaining_s is None:
        return False
    return remaining_s * 1000 <= _SLACK_MS + (deadline_ms or 0) // _SLACK_PARTS
