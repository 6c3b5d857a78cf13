"""What handlers say about their request: `annotate` and `skip`, from wherever they run.

One mutable holder per request is shared by everything that serves it. A `ContextVar` leads to the
holder, and copies of the context (thread pools, tasks, `BaseHTTPMiddleware`) lead to the same one,
so what the innermost layer says, the outermost middleware reads.
"""

from contextvars import ContextVar
from typing import Any

import uuid_utils

from auditlog.capture.recorder import Recorder


class Annotations:
    """What was said about the request at hand; None and empty where nothing was."""

    __slots__ = (
        "aggregate_id",
        "aggregate_type",
        "event_sequence",
        "event_type",
        "instance_id",
        "level",
        "log_id",
        "message",
        "metadata",
        "resource_owner",
        "skipped",
        "user_id",
    )

    user_id: str | None
    resource_owner: str | None
    instance_id: str | None
    aggregate_type: str | None
    aggregate_id: str | None
    event_type: str | None
    event_sequence: int | None
    message: str | None
    level: int | None
    log_id: str | None
    """The row's identifier, once somebody had to know it before the row is written."""

    metadata: dict[str, Any]
    skipped: bool

    @property
    def recorder(self) -> Recorder:
        """The log to which the request's row goes."""
        raise NotImplementedError

    def identity(self) -> tuple[str | None, str | None, str | None]:
        """Return user, organisation and tenant, as far as they are known by now."""
        raise NotImplementedError

    def trace(self) -> tuple[str | None, str | None]:
        """Return trace id and parent span id."""
        raise NotImplementedError

    def row_id(self) -> str:
        """Return the identifier of the request's row, which is fixed by asking for it.

        Of a request that has a row at its beginning and one at its end, it is the first one's.
        """
        made = str(uuid_utils.uuid7())
        # Threads of one request may ask at once. Nothing is called between the two lines, so the
        # interpreter goes to no other thread, and to no signal handler, in between.
        if self.log_id is None:
            self.log_id = made
        return self.log_id


_PAIR = 2
_PAIRS = (tuple, list)

current: ContextVar[Annotations | None] = ContextVar("auditlog.current", default=None)
"""The holder of the request that is being served here, if one is."""


def annotate(
    *,
    user_id: object = None,
    resource_owner: object = None,
    instance_id: object = None,
    aggregate: tuple[object, object] | None = None,
    event_type: str | None = None,
    event_sequence: int | None = None,
    message: str | None = None,
    level: int | None = None,
    **metadata: Any,
) -> None:
    """Add to the audit row of the request being served; a no-op outside one.

    May be called from handlers, dependencies, sync endpoints in a thread pool and tasks; what is
    said later replaces what was said before. It ends when the row is written: a task that
    outlives its request says nothing more.

    Args:
        user_id: Who did it. Like the other identifiers, anything with a fitting `str`.
        resource_owner: The organisation to whom the thing belongs.
        instance_id: The tenant.
        aggregate: What it was done to, as type and identifier: `("user", 42)`.
        event_type: What was done, in the application's words: `"user.deleted"`.
        event_sequence: The position in the application's own event stream.
        message: One sentence for people.
        level: A `LogLevel`, instead of the one concluded from the outcome.
        metadata: More, stored as JSON. Fields with a secret's name are redacted.
    """
    holder = current.get()
    if holder is None:
        return
    if user_id is not None:
        holder.user_id = text_of(user_id)
    if resource_owner is not None:
        holder.resource_owner = text_of(resource_owner)
    if instance_id is not None:
        holder.instance_id = text_of(instance_id)
    if aggregate is not None:
        holder.aggregate_type, holder.aggregate_id = pair_of(aggregate)
    if event_type is not None:
        holder.event_type = event_type
    if event_sequence is not None:
        holder.event_sequence = event_sequence
    if message is not None:
        holder.message = message
    if level is not None:
        holder.level = level
    if metadata:
        # In place, in one step of the interpreter: threads of one request may speak at once.
        holder.metadata.update(metadata)


def skip() -> None:
    """Leave the request being served out of the trail; a no-op outside one."""
    holder = current.get()
    if holder is not None:
        holder.skipped = True


def pair_of(target: Any) -> tuple[str, str | None]:
    """Take a pair of type and identifier; of anything else, its text as the type.

    It never raises: what is audited goes on.
    """
    try:
        # Its type is asked, not its __class__, which may be foreign code, as its len may be.
        if issubclass(type(target), _PAIRS) and len(target) == _PAIR:
            kind, identifier = target
            return text_of(kind), text_of(identifier)
    except Exception:  # noqa: BLE001, S110  # foreign code
        pass
    return text_of(target), None


def text_of(value: object) -> str:
    """Return its `str`; where that raises, its class: what is audited goes on."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # foreign code
        return f"<{type(value).__name__}>"
