"""The lock that each kind of operation takes, and what it waits for: for `plan` and for readers.

As measured on PostgreSQL 15 and 18 (2026-11-28). Lock modes as PostgreSQL's documentation names
them; ACCESS EXCLUSIVE is the one that readers and writers wait behind.
"""

from collections.abc import Mapping

from auditlog.partitions.model import OperationKind

LOCKS: Mapping[OperationKind, str] = {
    "finalize": "SHARE UPDATE EXCLUSIVE on the table, ACCESS EXCLUSIVE on the partition",
    "heal": "ACCESS EXCLUSIVE on the table and its DEFAULT, for milliseconds; before that, a scan"
    " of the DEFAULT under SHARE UPDATE EXCLUSIVE",
    "create": "SHARE UPDATE EXCLUSIVE on the table; ACCESS EXCLUSIVE on a DEFAULT",
    "repair": "ACCESS EXCLUSIVE on the partition, for milliseconds; SHARE while an index is built",
    "delete": "ROW EXCLUSIVE on the partition",
    "detach": "SHARE UPDATE EXCLUSIVE on the table (CONCURRENTLY), then ACCESS EXCLUSIVE on the"
    " partition; with a DEFAULT, ACCESS EXCLUSIVE on the table",
    "archive": "ACCESS SHARE on the detached partition",
    "drop": "ACCESS EXCLUSIVE on the detached partition",
    "attach": "SHARE UPDATE EXCLUSIVE on the table, ACCESS EXCLUSIVE on the partition",
    "analyze": "SHARE UPDATE EXCLUSIVE on the table and its partitions",
}

WAITS_FOR: Mapping[OperationKind, str] = {
    "finalize": "transactions that have used the table, and readers of the partition",
    "heal": "every transaction that has used the table",
    "create": "VACUUM, ANALYZE or DDL on the table; with a DEFAULT, whoever has used that",
    "repair": "transactions that have used the partition",
    "delete": "nothing but DDL on the partition",
    "detach": "transactions that have used the table, without holding up the next ones; with a"
    " DEFAULT, holding them up",
    "archive": "nothing",
    "drop": "whoever reads the detached partition by its name",
    "attach": "VACUUM, ANALYZE or DDL on the table; readers of the partition by its name",
    "analyze": "VACUUM, ANALYZE or DDL on the table or a partition",
}
