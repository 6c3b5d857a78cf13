"""What may stand in the way of a conversion, in words, and what mends it.

By the codes that obstacles.sql and `preflight` find.
"""

from auditlog.partitions.model import Finding, Severity


def finding(table: str, code: str, about: str) -> Finding:
    """Say what was found of a table; `about` is what it is about, such as an index."""
    severity, detail, remedy = _WORDS[code]
    words = {"table": f"logstore.{table}", "about": about}
    return Finding(code.replace(" ", "_"), severity, detail.format(**words), remedy.format(**words))


_WORDS: dict[str, tuple[Severity, str, str]] = {
    "no table": (
        "human",
        "there is no table {table}",
        "auditlog migrate makes it",
    ),
    "partitioned": ("note", "{table} is partitioned already", ""),
    "partitioned otherwise": (
        "human",
        "{table} is partitioned, and not by this package",
        "turn it into a plain table first, or leave it to what made it",
    ),
    "not owner": (
        "human",
        "{table} belongs to {about}, and only its owner can change it",
        "log in as that role, or as a member of it",
    ),
    "row security": (
        "human",
        "row security of {table} hides rows from this role: they would not be looked at",
        "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY, or use a role with BYPASSRLS",
    ),
    "no right": (
        "human",
        "this role has no right to {about}",
        "GRANT it, or log in as the owner of schema logstore",
    ),
    "unlogged": (
        "human",
        "{table} is not kept over a crash of the server",
        "ALTER TABLE {table} SET LOGGED",
    ),
    "storage": (
        "note",
        "the storage parameters {about} stay with the rows that are there: partitions made later"
        " have the server's",
        "",
    ),
    "inherits": (
        "human",
        "{table} inherits from {about}",
        "ALTER TABLE {table} NO INHERIT {about}",
    ),
    "inherited": (
        "human",
        "{about} inherits from {table}, as while partitions are given up",
        "end that: auditlog partitions disable; if it is your own, ALTER TABLE {about} NO INHERIT"
        " {table}",
    ),
    "typed": ("human", "{table} is of type {about}", "ALTER TABLE {table} NOT OF"),
    "key": (
        "human",
        "the primary key is {about}; partitions have (instance_id, log_id)",
        "restore it: ALTER TABLE {table} ADD PRIMARY KEY (instance_id, log_id)",
    ),
    "date type": (
        "human",
        "log_date is {about}, and partitions are ranges of timestamptz",
        "ALTER TABLE {table} ALTER COLUMN log_date TYPE timestamptz",
    ),
    "nullable": ("note", "log_date may be null, and will not be", ""),
    "null dates": (
        "human",
        "{about} rows have no log_date and fit no partition",
        "give them one, as owner under SET LOCAL auditlog.maintenance = 'on'",
    ),
    "infinite dates": (
        "human",
        "{about} rows have the log_date infinity, which no partition can have",
        "give them another, as owner under SET LOCAL auditlog.maintenance = 'on'",
    ),
    "future dates": (
        "human",
        "there are rows from the future, up to {about}",
        "mend that client's clock, then give them another log_date, as owner under SET LOCAL"
        " auditlog.maintenance = 'on'",
    ),
    "clock ahead": (
        "note",
        "the newest row is {about} ahead of the server: the first partition ends after it",
        "synchronise the clients' clocks by NTP",
    ),
    "identity": (
        "human",
        "column {about} is an identity, which partitions cannot share",
        "ALTER TABLE {table} ALTER COLUMN {about} DROP IDENTITY",
    ),
    "owned sequence": (
        "human",
        "sequence {about} would be dropped together with the oldest partition",
        "ALTER SEQUENCE {about} OWNED BY NONE",
    ),
    "extra column": ("note", "column {about} is the operator's; partitions will have it", ""),
    "missing column": (
        "human",
        "there is no column {about}",
        "auditlog doctor tells what the schema lacks",
    ),
    "invalid index": (
        "human",
        "index {about} is invalid, and would be built anew under lock",
        "REINDEX INDEX CONCURRENTLY {about}, or drop it",
    ),
    "unique index": (
        "human",
        "index {about} is unique without log_date, which no partitioned table can promise",
        "DROP INDEX CONCURRENTLY {about}, or build it with log_date in it",
    ),
    "missing index": (
        "note",
        "there is no index {about}: partitions will not have it either",
        "build it before, while rows are written: CREATE INDEX CONCURRENTLY",
    ),
    "exclusion": (
        "human",
        "constraint {about} excludes rows, which no partitioned table can",
        "ALTER TABLE {table} DROP CONSTRAINT {about}",
    ),
    "unvalidated": (
        "human",
        "constraint {about} was never validated",
        "ALTER TABLE {table} VALIDATE CONSTRAINT {about}",
    ),
    "not inherited": (
        "human",
        "constraint {about} is NO INHERIT, which a partitioned table cannot have",
        "add it without, drop this one",
    ),
    "refers": (
        "human",
        "foreign key {about} of {table} would be checked under lock",
        "ALTER TABLE {table} DROP CONSTRAINT {about}",
    ),
    "referred to": (
        "human",
        "foreign key {about} refers to {table}, whose key will be each partition's own",
        "drop it",
    ),
    "leftover": (
        "drift",
        "an earlier run was interrupted and left constraint {about}, which refuses rows from"
        " beyond its date",
        "run enable again, or disable to go back",
    ),
    "transition table": (
        "human",
        "trigger {about} has a transition table, which rows of partitions cannot have",
        "make it a statement trigger, or drop it",
    ),
    "rule": ("human", "{table} has the rule {about}", "drop it"),
    "view": ("note", "view {about} will be made to read what takes the table's name", ""),
    "view of others": (
        "human",
        "{about} would go on to read the old rows only, and belongs to another role",
        "log in as a member of its owner too, or drop it and make it again afterwards",
    ),
    "dependent": (
        "human",
        "{about} would go on to refer to the old rows only",
        "drop it, and make it again afterwards",
    ),
    "publication": ("note", "publication {about} will have what takes the table's name", ""),
    "publication by leaf": (
        "human",
        "publication {about} would send rows under the partitions' names",
        "ALTER PUBLICATION {about} SET (publish_via_partition_root = true)",
    ),
    "publication of parts": (
        "human",
        "publication {about} has only some rows or columns of {table}",
        "ALTER PUBLICATION {about} DROP TABLE {table}, and add it again afterwards",
    ),
    "publication of others": (
        "human",
        "publication {about} belongs to another role",
        "log in as a member of its owner too, or take the table out and add it afterwards",
    ),
    "taken name": (
        "human",
        "the name {about} is taken by something else",
        "rename or drop it",
    ),
    "no partition": (
        "human",
        "{table} has no partition that could become the plain table",
        "auditlog partitions maintain makes one",
    ),
    "detaching": (
        "human",
        "the detach of partition {about} was begun and has not ended",
        "auditlog partitions maintain ends it",
    ),
    "foreign": (
        "human",
        "partition {about} is not of this package's making",
        "detach it, and put its rows into {table} afterwards",
    ),
    "locks": (
        "human",
        "its partitions and their indexes need {about}",
        "raise max_locks_per_transaction, or let retention drop partitions first",
    ),
    "detached": (
        "note",
        "partition {about} was detached, and maintain will not come back to it",
        "let maintain archive and drop it before",
    ),
    "managed": ("human", "{table} is not this package's to partition", "{about}"),
    "long transaction": (
        "note",
        "{about}, holds a lock that the swap would wait for",
        "wait for its end, or pg_terminate_backend it",
    ),
    "prepared transaction": (
        "note",
        "the prepared transaction {about} holds a lock that the swap would wait for",
        "COMMIT PREPARED or ROLLBACK PREPARED it",
    ),
}
