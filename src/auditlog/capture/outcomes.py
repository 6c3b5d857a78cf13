"""The values of `audit.outcome` and `audit.status_source`, and the level that each outcome has.

Plain strings: an enumeration's member costs a call where a string costs nothing.
"""

from auditlog.records import LogLevel, RequestOutcome, StatusSource

_INFO, _WARN, _ERROR = (int(level) for level in (LogLevel.INFO, LogLevel.WARN, LogLevel.ERROR))

OK = str(RequestOutcome.OK)
CLIENT_ERROR = str(RequestOutcome.CLIENT_ERROR)
DENIED = str(RequestOutcome.DENIED)
SERVER_ERROR = str(RequestOutcome.SERVER_ERROR)
CLIENT_DISCONNECT = str(RequestOutcome.CLIENT_DISCONNECT)
INCOMPLETE = str(RequestOutcome.INCOMPLETE)
CANCELLED = str(RequestOutcome.CANCELLED)
DEADLINE = str(RequestOutcome.DEADLINE)
UNKNOWN = str(RequestOutcome.UNKNOWN)
WIRE, DERIVED, NONE = str(StatusSource.WIRE), str(StatusSource.DERIVED), str(StatusSource.NONE)

LEVEL_OF = {
    OK: _INFO,
    CLIENT_ERROR: _WARN,
    DENIED: _WARN,
    SERVER_ERROR: _ERROR,
    CLIENT_DISCONNECT: _WARN,
    INCOMPLETE: _ERROR,
    CANCELLED: _WARN,
    DEADLINE: _WARN,
    UNKNOWN: _WARN,
}
