"""How a table is described: the words in which `tables.py` and `projections.py` are written.

Nothing here knows a table or a connection.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

SqlType: TypeAlias = Literal[
    "text",
    "timestamptz",
    "bigint",
    "integer",
    "smallint",
    "boolean",
    "jsonb",
    "interval",
    "uuid",
    "bytea",
    "text[]",
    "integer[]",
    "bigint[]",
]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its PostgreSQL type, whether it may be NULL, its default in SQL."""

    name: str
    type: SqlType
    nullable: bool = False
    default: str | None = None
    max_bytes: int | None = None
    """UTF-8 bytes that a text may have; indexed columns keep a B-tree row under 2704 bytes."""
    collation: Literal["C"] | None = None
    """Identifiers are compared as bytes, whatever the locale of the database."""
    identity: bool = False
    """GENERATED ALWAYS AS IDENTITY: never named in an INSERT."""


@dataclass(frozen=True, slots=True)
class Index:
    """One index beside the primary key, and the question it is there for."""

    name: str
    key: str
    """What stands between the parentheses of CREATE INDEX, as PostgreSQL prints it."""
    serves: str
    """The question in words; the comment of the index in the database."""
    example: str
    """A query that asks it. The planner must choose this index for it at a million rows."""
    where: str | None = None
    method: Literal["btree", "brin"] = "btree"
    storage: str | None = None
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its schema and name, its columns in order, its primary key, its indexes."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    indexes: tuple[Index, ...] = ()

    @property
    def qualified_name(self) -> str:
        """`schema.name`; both are our own constants, so neither needs quoting."""
        return f"{self.schema}.{self.name}"

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns' names in COPY order."""
        return tuple(column.name for column in self.columns)

    @property
    def copy_statement(self) -> str:
        """The binary COPY that takes the sink's tuples."""
        names = ", ".join(self.column_names)
        return f"COPY {self.qualified_name} ({names}) FROM STDIN (FORMAT binary)"

    def index_definition(self, index: Index) -> str:
        """The statement that creates the index, as `pg_get_indexdef` prints it."""
        unique = "UNIQUE " if index.unique else ""
        storage = f" WITH ({index.storage})" if index.storage else ""
        where = f" WHERE ({index.where})" if index.where else ""
        return (
            f"CREATE {unique}INDEX {index.name} ON {self.qualified_name}"
            f" USING {index.method} ({index.key}){storage}{where}"
        )


@dataclass(frozen=True, slots=True)
class View:
    """One view: its schema and name, its columns with their types, in order."""

    schema: str
    name: str
    columns: tuple[tuple[str, SqlType], ...]


def identifier(name: str, *, nullable: bool = False) -> Column:
    """Describe a text column that is searched for, so bounded and compared as bytes."""
    # B-tree rows end at 2704 bytes; the widest index has four identifiers in it.
    return Column(name, "text", nullable=nullable, max_bytes=255, collation="C")


def instant(name: str, *, default: str | None = "now()") -> Column:
    """Describe a point in time; one without a default has not come yet, so it may be null."""
    return Column(name, "timestamptz", nullable=default is None, default=default)
