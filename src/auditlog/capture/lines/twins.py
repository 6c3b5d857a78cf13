"""Events that structlog hands on to `logging`, where the handler meets what the processor recorded.

They are known by the very dictionary, on the thread that logs. Once it has been rendered or copied
on the way, nobody can tell: then one of the two doors has to be closed.
"""

import threading

from auditlog.capture.application.events import ApplicationEvents


def expect_twins() -> None:
    """Remember events from now on: there is a handler that may meet them again."""
    global _expected  # noqa: PLW0603  # so that nothing is kept alive where no handler is
    _expected = True


def remember(audit: ApplicationEvents, event_dict: object) -> None:
    """Note that an event was recorded in a log."""
    if _expected:
        _thread.last = (audit, event_dict)


def is_twin(audit: ApplicationEvents, event_dict: object) -> bool:
    """Tell whether this event was the last recorded here, in the same log; forgets it then."""
    last = getattr(_thread, "last", None)
    if last is None or last[0] is not audit or last[1] is not event_dict:
        return False
    _thread.last = None
    return True


_expected = False
_thread = threading.local()
