"""An exception → one line with the remedy, and an exit code. No password of a DSN gets through."""

import contextlib
import enum
import re
import traceback

import psycopg
from psycopg.conninfo import conninfo_to_dict

from auditlog.demo.processes import DemoError
from auditlog.errors import AuditLogError, EmbeddedError, PolicyError, QuotaError, SettingsError
from auditlog.postgres.causes import explain, is_bad_dsn
from auditlog.postgres.embedded import SCHEME


class Exit(enum.IntEnum):
    """What the exit codes mean; docs/cli.md and every --help say the same."""

    OK = 0
    NOT_WELL = 1
    USAGE = 2
    NO_DATABASE = 3
    BUSY = 4
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 done · 1 what was asked for is not well · 2 usage or settings · 3 no database"
    " · 4 another run is at work"
)

# In a URL, and in a connection string or the query of a URL.
_PASSWORDS = (
    re.compile(r"://[^:@/]*:(.*)@"),
    re.compile(r"(?i)password\s*=\s*('(?:[^'\\]|\\.)*'|[^\s&]+)"),
)
# Of characters; words of messages are shorter, as a rule.
_UNMISTAKABLE_LENGTH = 8
# SQLSTATE classes: connection, authorisation, unknown database, going down, no connection left.
_NO_DATABASE_SQLSTATES = ("08", "28", "3D", "57P", "533")


def exit_code(error: BaseException) -> Exit:
    """Sort an exception under the exit codes."""
    driver_error = error if isinstance(error, psycopg.Error) else error.__cause__
    if isinstance(error, (SettingsError, PolicyError, QuotaError)) or _is_bad_dsn(driver_error):
        return Exit.USAGE
    if isinstance(error, EmbeddedError) or _means_no_database(driver_error):
        return Exit.NO_DATABASE
    return Exit.NOT_WELL


def one_line(error: BaseException, dsn: str | None) -> str:
    """Say what happened and what mends it."""
    return hide_secrets(_message(error), dsn)


def with_traceback(error: BaseException, dsn: str | None) -> str:
    """Say where it happened, for --debug."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = f"{with_traceback(cause, dsn)}\nwhich led to\n" if cause else ""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return before + hide_secrets(f"{frames}{type(error).__qualname__}: {_message(error)}", dsn)


def is_expected(error: BaseException) -> bool:
    """Tell whether the line says enough; anything else is a defect, and shows its traceback."""
    return isinstance(error, (AuditLogError, DemoError, psycopg.Error, OSError))


def hide_secrets(text: str, dsn: str | None) -> str:
    """Take a DSN and its password out of a text.

    A password that could be a piece of a word is hidden only where a DSN has it: elsewhere it
    would make "u***r" of "user", and tell by that what it is.
    """
    if not dsn or dsn.startswith(SCHEME):
        return text
    text = text.replace(dsn, "***")
    for password in sorted(_passwords(dsn), key=len, reverse=True):
        places = _places_of(password)
        text = re.sub(places, r"\g<before>***", text)
    return text


def _message(error: BaseException) -> str:
    # libpq quotes pieces of a DSN that it cannot parse; `explain` does not.
    text = str(explain(error)) if isinstance(error, psycopg.Error) else str(error)
    return text or repr(error)


def _is_bad_dsn(error: BaseException | None) -> bool:
    return isinstance(error, psycopg.Error) and is_bad_dsn(error)


def _means_no_database(error: BaseException | None) -> bool:
    if not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(_NO_DATABASE_SQLSTATES)


def _places_of(password: str) -> str:
    within_dsn = r"(?P<before>://[^:@/\s]*:|(?i:password)\s*=\s*'?)"
    anywhere = "(?P<before>)" if len(password) >= _UNMISTAKABLE_LENGTH else within_dsn
    return anywhere + re.escape(password)


def _passwords(dsn: str) -> set[str]:
    found = {password for pattern in _PASSWORDS for password in pattern.findall(dsn)}
    with contextlib.suppress(psycopg.Error):
        # Percent-encoding and escapes undone.
        found.add(str(conninfo_to_dict(dsn).get("password") or ""))
    return found - {""}
