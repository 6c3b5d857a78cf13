"""Where archives lie: a local folder, or whatever fsspec has a URL for. Blocking.

A file is there whole or not at all: locally it is written as `NAME.part`, synced and renamed; of
the object stores that is their own promise. Readers never rely on it: an archive without its
manifest is unfinished.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from auditlog.errors import PartitionError, SettingsError
from auditlog.partitions.archive.store import Store, StoreError

_PART = ".part"
# fsspec chains URLs, so it may stand anywhere.
_PASSWORD = re.compile(r"://[^:@/]*:[^/]*@")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def store_at(uri: str) -> Store:
    """Return the store of a path or URL; nothing is made before something is written.

    Raises:
        SettingsError: a URL with a password in it, or of a scheme that nobody knows.
        PartitionError: what reads such URLs is not installed.
    """
    if "://" not in uri:
        return Folder(_absolute(uri))
    if _PASSWORD.search(uri):
        raise SettingsError(
            "the archive's URL has a password in it, and archives' URLs are stored and shown:"
            " give it as the store's own settings do, such as AWS_SECRET_ACCESS_KEY"
        )
    # Its extra may be missing, and its import is slow.
    from auditlog.partitions.archive.remote import Remote  # noqa: PLC0415

    return Remote(uri)


def below(uri: str, *names: str) -> str:
    """Return the path or URL of a folder below another; local ones are absolute."""
    base = uri if "://" in uri else str(_absolute(uri))
    return "/".join((base.rstrip("/"), *names))


def _absolute(path: str) -> Path:
    """Return the one spelling by which the database knows a folder, whatever its links lead to."""
    return Path(os.path.abspath(path))  # pathlib leaves `..` or follows links


class Folder:
    """A local folder; what is made there is for its owner alone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.uri = str(path)

    def exists(self, name: str) -> bool:
        """Tell whether there is a file of that name."""
        with _explained(self.uri, "read"):
            return (self._path / name).exists()

    @contextmanager
    def reading(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading."""
        with _explained(self.uri, "read"), (self._path / name).open("rb") as file:
            yield file

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; power may fail at any time."""
        with _explained(self.uri, "written"):
            _make(self._path)
            part = self._path / (name + _PART)
            with _owned(part) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                _forget(file.fileno())
                part.replace(self._path / name)
            _sync(self._path)

    def folders(self) -> list[str]:
        """Return the names of the folders in this one."""
        with _explained(self.uri, "read"):
            if not self._path.is_dir():
                return []
            return sorted(entry.name for entry in self._path.iterdir() if entry.is_dir())


@contextmanager
def _owned(part: Path) -> Iterator[IO[bytes]]:
    """Open an unfinished file that no other process writes; it is gone after an error."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(part) from None
        # Between the two its owner may have finished it, and given it its name.
        if not part.exists() or not os.path.samestat(os.fstat(descriptor), part.stat()):
            raise _busy(part)
        file.truncate()
        try:
            yield file
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def _forget(descriptor: int) -> None:
    """Have it read back from the disk, and not from memory, where the system can be asked to."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _busy(part: Path) -> PartitionError:
    return PartitionError(f"another process writes {part}: run this again when it has ended")


def _make(path: Path) -> None:
    """Make a folder and those above it, each of them safe from a loss of power."""
    if path.is_dir():
        return
    _make(path.parent)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _explained(uri: str, verb: str) -> Iterator[None]:
    """Turn what the system says into what is to be done."""
    try:
        yield
    except OSError as error:
        remedy = "check the path and its permissions"
        if error.errno in _FULL:
            remedy = "free space there, or archive to another place"
        raise StoreError(
            f"the archive in {uri} cannot be {verb}: {error.strerror or error}: {remedy}"
        ) from error
