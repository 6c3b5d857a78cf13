"""Archives behind a URL that fsspec knows: s3://, gs://, memory://, file://. Blocking.

fsspec is an extra, and so is what it needs for the scheme. Credentials are those of the store's
own settings and environment.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import psycopg

from auditlog.errors import PartitionError, SettingsError
from auditlog.partitions.archive.store import StoreError

_BLOCK_BYTES = 8 * 1024 * 1024
"""Parts of an upload, and what reading fetches at once: S3 takes 10 000 parts, so 80 GB."""


class Remote:
    """A folder behind a URL."""

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        try:
            import fsspec  # noqa: PLC0415  # an extra

            self._fs, self._path = fsspec.core.url_to_fs(self.uri)
        except ImportError as error:
            raise PartitionError(
                f"{uri} needs {error.name or 'fsspec'}: pip install 'auditlog-postgres[s3]'"
                " for s3://, or fsspec and the package that it names for the scheme"
            ) from error
        except ValueError as error:
            raise SettingsError(f"{uri} is no place for an archive: {error}") from error

    def exists(self, name: str) -> bool:
        """Ask the store, and no cache of an earlier answer."""
        with _explained(self.uri, "read"):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._file(name)))

    @contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading."""
        with _explained(self.uri, "read"):
            self._fs.invalidate_cache()
            with self._fs.open(self._file(name), "rb", block_size=_BLOCK_BYTES) as file:
                yield cast("IO[bytes]", file)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; an upload that ends in an error is given up."""
        with _explained(self.uri, "written"):
            file = self._created(name)
            try:
                yield cast("IO[bytes]", file)
            except BaseException:
                _give_up(file)
                raise
            file.close()

    def folders(self) -> list[str]:
        """Return the names of the folders in this one."""
        with _explained(self.uri, "read"):
            self._fs.invalidate_cache()
            try:
                entries = self._fs.ls(self._path, detail=True)
            except FileNotFoundError:
                return []
        names = [entry["name"] for entry in entries if entry["type"] == "directory"]
        return sorted(name.rstrip("/").rpartition("/")[2] for name in names)

    def _created(self, name: str) -> Any:
        try:
            return self._fs.open(self._file(name), "wb", block_size=_BLOCK_BYTES)
        except FileNotFoundError:
            # Only a store that has folders says so here. Those that have none would make a bucket
            # of a name that was mistyped.
            self._fs.makedirs(self._path, exist_ok=True)
            return self._fs.open(self._file(name), "wb", block_size=_BLOCK_BYTES)

    def _file(self, name: str) -> str:
        return f"{self._path}/{name}"


def _give_up(file: Any) -> None:
    """Leave nothing of an upload; where a store cannot, no manifest will ever speak of it."""
    if hasattr(file, "blocksize"):
        # An upload in parts: closing it, and its finaliser, would make an object of those sent.
        file.discard()
        file.closed = True
    else:
        file.close()


@contextmanager
def _explained(uri: str, verb: str) -> Iterator[None]:
    """Tell failures of a store, whose kinds are as many as stores, in one."""
    try:
        yield
    except (PartitionError, psycopg.Error):
        raise
    except Exception as error:
        raise StoreError(
            f"the archive in {uri} cannot be {verb}: {type(error).__name__}: {error}:"
            " check the URL, the credentials and the network"
        ) from error
