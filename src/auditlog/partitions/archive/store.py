"""What a place for archives can do, wherever it is."""

from contextlib import AbstractContextManager
from typing import IO, Protocol

from auditlog.errors import PartitionError


class StoreError(PartitionError):
    """A place cannot be read or written; it says nothing of what is there."""


class Store(Protocol):
    """A folder of files, by their bare names."""

    uri: str

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""

    def reading(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file for reading, with `seek`."""

    def writing(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file for writing; it is there when the context ends without an error."""

    def folders(self) -> list[str]:
        """Return the names of the folders in this one, sorted; none where it does not exist."""
