"""A server of their own for tests that stop, crash or configure one."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from auditlog.postgres import embedded
from auditlog.postgres.migrate import migrate


@contextmanager
def own_server() -> Iterator[Path]:
    """Start an embedded server, migrated, and give its folder; stop it at the end."""
    with tempfile.TemporaryDirectory(prefix="al-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "data")
        with embedded.start(path) as server:
            migrate(server.dsn)
            yield path
