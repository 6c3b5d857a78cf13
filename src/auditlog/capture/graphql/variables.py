"""Variables of an operation → what of them may be stored: plain JSON, capped, redacted.

Files stand in the variables of an upload as objects; of them, as of everything that is no JSON,
only the class is shown. A variable that does not fit into what room is left is named, without its
value. Never raises.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from auditlog.capture.redaction.redactor import Redactor

TRUNCATED: Final = "[TRUNCATED]"
UNREADABLE: Final = "[UNREADABLE]"
_MAX_NAME_CHARS = 255


def storable(variables: object, redactor: Redactor, max_bytes: int) -> Any:
    """Return at most about `max_bytes` of the variables; None if there are none."""
    try:
        if not isinstance(variables, Mapping) or not variables:
            return None
        # Cut first: what is left out need not be searched for secrets.
        return redactor.json(_cut(variables, max_bytes))
    except Exception:  # noqa: BLE001  # what cannot be judged is left out
        return UNREADABLE


def _cut(variables: Mapping[Any, Any], room: int) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in variables.items():
        name = str(key)[:_MAX_NAME_CHARS]
        data = _json(value)
        if len(name) + len(data) <= room:
            kept[name] = orjson.loads(data)
            room -= len(name) + len(data)
        else:
            kept[name] = TRUNCATED
            room -= len(name) + len(TRUNCATED)
        if room <= 0:
            break
    return kept


def _json(value: object) -> bytes:
    try:
        return orjson.dumps(value, default=_class_of, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError:  # a number of more than 64 bits, a text that is no Unicode
        return orjson.dumps(UNREADABLE)


def _class_of(value: object) -> str:
    return f"<{type(value).__name__}>"
