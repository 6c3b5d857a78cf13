"""The .sql files beside this one, each one statement, read once."""

from functools import cache
from importlib.resources import files


@cache
def statement(name: str) -> bytes:
    """Return the statement of `NAME.sql`."""
    return files("auditlog.query").joinpath(f"{name}.sql").read_bytes()
