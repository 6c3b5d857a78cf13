"""The event that is recorded in a transaction of the application's: made as every event is.

It has its identifier from the start, which its caller is given.
"""

import inspect
from typing import Any

import uuid_utils

from auditlog.capture.application.event import event_record
from auditlog.capture.application.events import ApplicationEvents
from auditlog.capture.redaction.redactor import Redactor
from auditlog.records import LogRecord

_ARGUMENTS = frozenset(
    name
    for name, parameter in inspect.signature(ApplicationEvents.record).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY
)


def event_within(redactor: Redactor, event_type: object, said: dict[str, Any]) -> LogRecord:
    """Make the record of an event, of what `ApplicationEvents.record` takes by keyword."""
    arguments = {name: value for name, value in said.items() if name in _ARGUMENTS}
    metadata = {name: value for name, value in said.items() if name not in _ARGUMENTS}
    record = event_record(redactor, event_type, **arguments, metadata=metadata)
    record.log_id = str(uuid_utils.uuid7())
    return record
