"""The .sql files that lie beside modules, each one statement, read once."""

from functools import cache
from importlib.resources import files


@cache
def statement(package: str, name: str) -> bytes:
    """Return the statement of `NAME.sql` in a package."""
    return files(package).joinpath(f"{name}.sql").read_bytes()
