"""What came after the row: a request whose row is durable before its answer goes on for a while.

A background task says more or fails, the answer turns out to be refused. That makes a row of its
own, of stage `late`, which names the request's row in `audit.exchange_id` and repeats little of
it. It has no status and no response time, for those of the request are counted with its own row;
only what was refused has the status that its client saw.
"""

from typing import Any, Final

from auditlog.capture.in_flight import Identity, InFlight
from auditlog.capture.outcomes import CANCELLED, LEVEL_OF, NONE, OK, SERVER_ERROR
from auditlog.capture.policy import Decision, Level
from auditlog.records import LogRecord

LATE: Final = "late"
_ABSENT: Final = object()
_NOTHING: Final[dict[str, Any]] = {}
# In the order in which `said` has them.
_TYPE, _ID, _EVENT_TYPE, _EVENT_SEQUENCE, _MESSAGE, _LEVEL, _METADATA, _ERROR_TYPE = range(8)
_REFUSED: Final = 8


def said(request: InFlight) -> tuple[Any, ...]:
    """Take down all that has been said so far, and what went wrong."""
    return (
        request.aggregate_type,
        request.aggregate_id,
        request.event_type,
        request.event_sequence,
        request.message,
        request.level,
        dict(request.metadata) if request.metadata else _NOTHING,
        request.error_type,
        request.refused,
        request.user_id,
        request.resource_owner,
        request.instance_id,
    )


def late_row(
    request: InFlight, before: tuple[Any, ...], error: BaseException | None
) -> LogRecord | None:
    """Tell what is not in the request's row; None if there is nothing, or the policy wants none.

    Args:
        request: As it stands; its row has been made.
        before: What had been `said` by then.
        error: What left the application; its type is noted in the request.
    """
    after = said(request)
    if not differs(before, after):
        return None
    outcome = _outcome(request, before, error)
    identity = request.identity()
    decision = request.capture.policy.decide(
        request.protocol,
        request.method,
        request.path,
        request.route(),
        request.status,
        outcome,
        identity[0],
        identity[2] or request.capture.tenant,
    )
    if decision.level is Level.NONE:
        return None
    return _row(request, before, after, outcome, identity, decision)


def _row(  # noqa: PLR0917  # each by its name
    request: InFlight,
    before: tuple[Any, ...],
    after: tuple[Any, ...],
    outcome: str,
    identity: Identity,
    decision: Decision,
) -> LogRecord:
    news = [new if differs(old, new) else None for old, new in zip(before, after, strict=True)]
    message, level = news[_MESSAGE], news[_LEVEL]
    names_another = any(differs(before[index], after[index]) for index in (_TYPE, _ID))
    aggregate_type, aggregate_id = (after[_TYPE], after[_ID]) if names_another else (None, None)
    user_id, resource_owner, instance_id = identity
    low_priority = decision.low_priority
    return LogRecord(
        occurrence_date=request.started_us,
        protocol=request.protocol,
        request_url=request.target(),
        request_method=request.method,
        response_status=request.status if _is_refused_since(before, request) else None,
        user_id=user_id,
        resource_owner=resource_owner,
        aggregate_type=aggregate_type,
        aggregate_id=aggregate_id,
        event_type=news[_EVENT_TYPE],
        event_sequence=news[_EVENT_SEQUENCE],
        log_level=LEVEL_OF[outcome] if level is None else level,
        message=None if message is None else request.capture.redactor.text(message),
        metadata=_metadata(request, before, after, outcome, decision),
        instance_id=instance_id,
        low_priority=outcome is OK if low_priority is None else low_priority,
    )


def _metadata(
    request: InFlight,
    before: tuple[Any, ...],
    after: tuple[Any, ...],
    outcome: str,
    decision: Decision,
) -> dict[str, Any]:
    refused = _is_refused_since(before, request)
    own = {
        "audit.stage": LATE,
        "audit.exchange_id": request.row_id(),
        **({"audit.refused": True} if refused else {}),
        **request.facts(None),
        "audit.outcome": outcome,
        "audit.status_source": request.status_source if refused else NONE,
    }
    if decision.rule is not None:
        own["audit.rule"] = decision.rule
    if request.error_type is not None:
        own["error.type"] = request.error_type
    known = before[_METADATA]
    news = {
        key: value
        for key, value in after[_METADATA].items()
        if differs(known.get(key, _ABSENT), value)
    }
    # Ours first and last, as in the request's own row; and that it was refused is ours to say.
    news.pop("audit.refused", None)
    return {**own, **request.capture.redactor.json(news), **own} if news else own


def _outcome(request: InFlight, before: tuple[Any, ...], error: BaseException | None) -> str:
    if _is_refused_since(before, request):
        return SERVER_ERROR
    if error is None or request.error_type == before[_ERROR_TYPE]:
        return OK
    return SERVER_ERROR if isinstance(error, Exception) else CANCELLED


def _is_refused_since(before: tuple[Any, ...], request: InFlight) -> bool:
    """Is it news? A request may have several late rows; one of them tells it."""
    return request.refused and not before[_REFUSED]


def differs(old: Any, new: Any) -> bool:
    """Compare what an application made; True where it cannot be compared."""
    try:
        return bool(old != new)
    except Exception:  # noqa: BLE001  # what applications put there compares itself as it likes
        return True
