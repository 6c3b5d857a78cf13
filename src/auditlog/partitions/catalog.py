"""One table in the catalog of the server → its `TableState`.

Reads only, and takes no lock on the tables that would stand in anybody's way. All but the rows of
tenants and of a DEFAULT is as of one instant. What the role may not read is said in `unread`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, LiteralString, cast

import psycopg
from psycopg import Connection, sql
from psycopg.rows import dict_row

from auditlog.errors import PartitionError
from auditlog.partitions import drift
from auditlog.partitions.attached import Attached, sort
from auditlog.partitions.managers import find_manager
from auditlog.partitions.model import Hold, Leaf, Retirement, TableConfig, TableState
from auditlog.partitions.query_texts import first_words
from auditlog.partitions.spans import Span
from auditlog.partitions.statements import statement
from auditlog.partitions.windows import MARK
from auditlog.tables import HOLDS, PARTITIONING, RETIREMENTS
