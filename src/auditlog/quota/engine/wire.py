"""Groups, charges and returns → the JSON that `logstore.spend_quotas` and `return_quotas` take."""

from collections.abc import Sequence
from typing import Any

import orjson

from auditlog.quota.engine.asks import Group
from auditlog.quota.engine.owed import Return
from auditlog.quota.model import Actor
from auditlog.sink.encoding.storable import storable_text

MAX_TEXT_BYTES = 4_096
"""Of one text, when one has to be changed: more is no name of anything."""

_NUL = rb"\u0000"


def asks_json(groups: Sequence[Group]) -> str:
    """Say what groups want."""
    return _json([_ask(group) for group in groups])


def returns_json(returns: Sequence[Return]) -> str:
    """Say what is given back."""
    return _json([_return(each) for each in returns])


def _ask(group: Group) -> dict[str, Any]:
    quota, span = group.quota, group.span
    ask: dict[str, Any] = {
        "q": group.key.quota_id,
        "t": group.key.instance_id,
        "s": group.key.subject,
        "n": max(1, len(group.asks)),
        "a": group.amount,
        "extra": group.extra,
        "limit": quota.limit,
        "enforced": quota.enforced,
        "forced": group.charge is not None,
        "thresholds": quota.thresholds,
    }
    if span.window_us:
        ask["window"] = span.window_us
    else:
        ask["start"], ask["end"] = span.start_us, span.end_us
    if quota.thresholds:
        actors = [group.charge.actor] if group.charge else [ask.actor for ask in group.asks]
        ask["actors"] = [_actor(actor) for actor in actors]
    return ask


def _actor(actor: Actor) -> list[str | None]:
    return [actor.user_id, actor.resource_owner, actor.action]


def _return(each: Return) -> dict[str, Any]:
    key, span = each.key, each.span
    row: dict[str, Any] = {
        "q": key.quota_id,
        "t": key.instance_id,
        "s": key.subject,
        "units": each.units,
    }
    if span.window_us:
        return row | {"window": span.window_us, "at": span.start_us}
    return row | {"start": span.start_us}


def _json(rows: list[dict[str, Any]]) -> str:
    """One text that cannot be stored would have the whole call refused."""
    try:
        text = orjson.dumps(rows)
    except TypeError:  # a lone surrogate, or no text at all
        text = _NUL
    return (orjson.dumps(_storable(rows)) if _NUL in text else text).decode()


def _storable(value: Any) -> Any:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, dict):
        return {name: _storable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(each) for each in value]
    return storable_text(value, MAX_TEXT_BYTES)[0].decode()
