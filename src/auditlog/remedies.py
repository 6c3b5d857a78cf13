"""An error of the driver → its SQLSTATE and what mends it: said once, for writing and for looking.

Codes: PostgreSQL, Appendix A. libpq gives none for a connection that failed, only a text of its
own, of the server's or of a pooler's; what such a text allows to conclude stands in `_SIGNS`.
Poolers and forks put one code of their own in the place of every server's; what the text then still
says stands in `_HIDDEN`. The remedies are constants: no row, no password and no part of a DSN is
ever in one.
"""

import re
from typing import NamedTuple

from psycopg import Error, ProgrammingError

BAD_DSN = "bad DSN"
"""In the place of a SQLSTATE: the driver could not read the connection string."""


class Identified(NamedTuple):
    """What is known of an error."""

    sqlstate: str
    """Empty where neither code nor text tells."""
    words: str
    """The cause in one line: the server's or libpq's words, but for a DSN that is none."""
    remedy: str
    """Empty where none is known."""


def identify(error: Error) -> Identified:
    """Tell what an error is, by its code or by its text."""
    text = str(error)
    if error.sqlstate and error.sqlstate not in _VAGUE:
        return Identified(error.sqlstate, _first_line(error), remedy_of(error.sqlstate))
    # Only at its beginning: further on, a text may quote a row, and whoever wrote that row could
    # make a failure look like another.
    for sqlstate, beginning in _HIDDEN:
        if beginning.match(_first_line(error)):
            return Identified(sqlstate, _first_line(error), remedy_of(sqlstate))
    if error.sqlstate:
        return Identified(error.sqlstate, _first_line(error), remedy_of(error.sqlstate))
    # A ":", "/" or "@" in a password moves part of it into the host or the port, and libpq's
    # message quotes that; so these messages are never repeated.
    if isinstance(error, ProgrammingError) or _MISREAD.search(text):
        return Identified(BAD_DSN, "the DSN is not a connection string", _REMEDIES[BAD_DSN])
    for sqlstate, sign, remedy in _SIGNS:
        if match := sign.search(text):
            return Identified(sqlstate, match[0], remedy or remedy_of(sqlstate))
    return Identified("", _first_line(error), "")


def remedy_of(sqlstate: str) -> str:
    """Return what mends a code or the whole of its class, which is the first two characters."""
    return _REMEDIES.get(sqlstate) or _REMEDIES.get(sqlstate[:2], "")


def _first_line(error: Error) -> str:
    return error.diag.message_primary or str(error).partition("\n")[0]


_MISREAD = re.compile("invalid integer value|invalid port number")

_OTHER_SCHEMA = "the schema is of another version, or was changed by hand: run `auditlog doctor`"
_MISSING_SCHEMA = "the schema is missing: run `auditlog migrate`"
_HELD_UP = (
    "a lock or a slow server holds statements up, or somebody cancels them: look for it in"
    " pg_stat_activity; statement_timeout_s gives writing more time"
)
_DAMAGED = "pages of the database are damaged: see the server's log, and restore what it names"
_REMEDIES = {
    BAD_DSN: "write postgresql://USER:PASSWORD@HOST/DATABASE with special characters of the"
    " password percent-encoded (@ is %40, / is %2F), or host=... dbname=... user=...",
    "08P01": "a column has another type, or a pooler gave up: run `auditlog doctor`",
    "22P03": _OTHER_SCHEMA,
    "22P04": _OTHER_SCHEMA,
    "23502": _OTHER_SCHEMA,
    "25006": "the server takes no writes: use the DSN of the primary, or name all hosts in it"
    " with target_session_attrs=read-write",
    "28": "check user, password and pg_hba.conf",
    "28000": "check user, password and pg_hba.conf: createuser NAME makes a user, and a line of"
    " pg_hba.conf admits it from here",
    "28P01": "check user, password: it comes from the DSN or from ~/.pgpass",
    "3D": "the database does not exist: create it (createdb NAME), or correct the name in the DSN",
    "3F": _MISSING_SCHEMA,
    "42501": "grant the rights: `auditlog doctor` prints the statements for writing; for reading"
    " it is GRANT USAGE ON SCHEMA logstore and GRANT SELECT ON logstore.logs",
    "42703": "the schema is of another version: run `auditlog migrate`",
    "42P01": _MISSING_SCHEMA,
    "53100": "free disk space on the server",
    "53300": "raise max_connections, or use a pooler",
    "55P03": _HELD_UP,
    "57014": _HELD_UP,
    "57P03": "wait until the server is up",
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}

_VAGUE = frozenset({"08P01", "58000", "XX000", "XXUUU"})
"""What PgBouncer, Pgpool-II, PostgreSQL's extensions and CockroachDB say of anything."""

# As PostgreSQL words them. A failure that is none of these is the connection's, and is retried.
_HIDDEN = tuple(
    (sqlstate, re.compile(rf'((ERROR|FATAL|server login [^:"]*): *)*({beginning})'))
    for sqlstate, beginning in (
        ("22001", r"value too long for type"),
        ("22003", r"value overflows numeric format|numeric field overflow|\w+ out of range"),
        ("22021", r"invalid byte sequence for encoding"),
        ("22P02", r"invalid input syntax for type"),
        ("22P03", r"incorrect binary data format|insufficient data left in message"),
        ("22P05", r"unsupported Unicode escape sequence"),
        ("23502", r"null value in column"),
        ("23505", r"duplicate key value violates unique constraint"),
        ("23514", r"no partition of relation"),
        ("23000", r"new row for relation"),  # a CHECK; 23514 without its name is a partition's
        ("25006", r"cannot execute [A-Z ]+ in a read-only transaction"),
        ("28000", r'no pg_hba.conf entry|role "[^"]*" does not exist'),
        ("28P01", r"password authentication failed"),
        ("3D000", r'database "[^"]*" does not exist'),
        ("3F000", r'schema "[^"]*" does not exist'),
        ("42501", r"permission denied for"),
        ("42703", r'column "[^"]*"( of relation "[^"]*")? does not exist'),
        ("42P01", r'relation "[^"]*" does not exist'),
        ("54000", r"index row (size|requires)"),
        ("54001", r"stack depth limit exceeded"),
        ("57P01", r"terminating connection due to administrator command"),
    )
)

_UNREACHABLE = "08001"
_BROKEN = "08006"
# What the text says, and the remedy where the code's own would not be precise enough. Of several
# hosts each may have failed for another reason: the one that somebody has to mend comes first.
_SIGNS = tuple(
    (sqlstate, re.compile(pattern), remedy)
    for sqlstate, pattern, remedy in (
        (
            "28P01",
            r"(\w+ )?authentication failed( for user \"[^\"\n]*\")?"
            r"|fe_sendauth: no password supplied|\bauth failed|\blogin (failed|rejected)",
            "",
        ),
        ("28000", r"no pg_hba.conf entry [^\n]*", ""),
        ("28000", r"role \"[^\"\n]*\" does not exist|no such user[^\n]*", ""),
        ("3D000", r"database \"[^\"\n]*\" does not exist|no such database[^\n]*", ""),
        (
            "0A000",
            r"unsupported startup parameter[^\n]*",
            "the pooler does not pass a parameter of the DSN: leave it out, or add it to"
            " ignore_startup_parameters",
        ),
        ("25006", r"session is read-only|server is in hot standby mode", ""),
        (
            _BROKEN,
            # A pooler's words too: what it says when its own connection ended, or none was free.
            r"(server|SSL connection has been|connection was) closed[^\n]*|SSL SYSCALL error[^\n]*"
            r"|server conn crashed\?|query_wait_timeout|client_idle_timeout|server_lifetime",
            "see the logs of the server, of a pooler and of a firewall between",
        ),
        (
            _UNREACHABLE,
            r"connection to server (at|on) [^\n]*Connection refused",
            "start the server, or correct host and port in the DSN",
        ),
        (
            _UNREACHABLE,
            r"connection to server on socket [^\n]*No such file or directory",
            "start the server, or correct the folder of its socket in the DSN",
        ),
        (
            _UNREACHABLE,
            r"failed to resolve host '[^'\n]*'",
            "correct the host in the DSN, or ask whoever keeps the DNS",
        ),
        (
            _UNREACHABLE,
            r"(connection )?time(d out|out expired)",
            "correct host and port in the DSN, or let the firewall pass it",
        ),
        (
            _UNREACHABLE,
            r"(SSL|certificate)[^\n]*|server does not support SSL[^\n]*",
            "correct sslmode and sslrootcert in the DSN",
        ),
        (
            "53300",
            r"(sorry, )?too many clients already|remaining connection slots are reserved[^\n]*"
            r"|too many connections for [^\n]*|no more connections allowed[^\n]*"
            r"|pgpool is not accepting any more new connections|pgpool is not available[^\n]*",
            "",
        ),
        (
            "57P03",
            r"the database system is [^\n]*|pgbouncer cannot connect to server"
            r"|all backend nodes are down[^\n]*|server is not accepting clients[^\n]*",
            "",
        ),
    )
)
