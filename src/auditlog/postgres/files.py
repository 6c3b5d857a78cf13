"""The files of migrations/, in the wheel or in the checkout → `Migration`s in order.

No database is asked; `migrate.status` adds what one knows of them.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Literal

from auditlog.errors import MigrationError


@dataclass(frozen=True, slots=True)
class Migration:
    """One file, `NNNN_name.sql`, and what the database knows of it."""

    version: int
    name: str
    sql: str = ""
    state: Literal["pending", "applied", "changed", "unknown"] = "pending"
    """`changed`: applied, but the file is another now. `unknown`: a newer package applied it."""
    applied_at: datetime | None = None
    applied_by: str | None = None
    package_version: str | None = None
    """None: psql applied it, and the next `migrate` will sign the row."""

    @property
    def file_name(self) -> str:
        """The name within migrations/."""
        return f"{self.version:04}_{self.name}.sql"

    @property
    def digest(self) -> bytes:
        """What the history keeps of the file."""
        return sha256(self.sql.encode()).digest()


def available(folder: Path | None = None) -> list[Migration]:
    """Return the files of the wheel or of the checkout, or those in `folder`, in order."""
    package = Path(__file__).parents[1]
    for place in (
        [folder] if folder else [package / "migrations", package.parents[1] / "migrations"]
    ):
        if paths := sorted(place.glob("[0-9][0-9][0-9][0-9]_*.sql")):
            return [Migration(int(p.stem[:4]), p.stem[5:], p.read_text("utf-8")) for p in paths]
    raise MigrationError("the package has lost its migrations: install auditlog-postgres again")


def package_version() -> str:
    """Return the version of the installed distribution, which the history keeps too."""
    return metadata.version("auditlog-postgres")
