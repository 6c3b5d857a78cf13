"""Dead letters → stored after all, or discarded with a row in the trail that says so.

Blocking; for the command line and for scripts. Each letter is stored in a transaction that takes it
out of `logstore.dead_letters`, so two who replay the same one store it once; the lock order is the
writer's. Letters of a file are taken out of it afterwards: a crash in between leaves a letter whose
replay adds nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, LiteralString
from uuid import UUID

import uuid_utils
from psycopg import Connection, Cursor, Error
from psycopg.rows import class_row

from auditlog.settings import Settings
from auditlog.sink.careful import REPAIRED
from auditlog.sink.dead_letters import DeadLetter
from auditlog.sink.encode import Encoder
from auditlog.sink.faults import Fault, classify, sqlstate_of
from auditlog.sink.gaps import Gap, Gaps
from auditlog.sink.ledger import LEDGER, LOCK_LEDGER, copy_stream, ledger_row, writer_name
from auditlog.sink.merge import DIFFERING, MERGE, accept_arrays, columns_of
from auditlog.sink.own_rows import gap_record
from auditlog.sink.reduced import is_tuple, reduced
from auditlog.sink.transactional import insert
from auditlog.sink.tuples import fields, log_date_of
from auditlog.tables import DEAD_LETTERS, TABLES

DISCARDED = "discarded"
WHY = "audit.gap.why"

_NAME = DEAD_LETTERS.qualified_name
_COLUMNS: LiteralString = (
    "letter_id, died_at, writer, table_name, columns, row, instance_id, log_id, sqlstate, reason"
)
