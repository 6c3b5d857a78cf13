"""Whether an archive is what its manifest says, by reading all that is stored. No server is asked.

What was changed together with its manifest is known by the database that it came from: the
manifest's SHA-256 stands in `logstore.retirements`.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from hashlib import sha256

from auditlog.errors import PartitionError
from auditlog.partitions.archive.manifest import (
    DATA_FILES,
    FILE,
    MAX_BYTES,
    Manifest,
    decode,
)
from auditlog.partitions.archive.packing import agree, stop_without, unpack
from auditlog.partitions.archive.raw import Passed
from auditlog.partitions.archive.storage import store_at
from auditlog.partitions.archive.store import Store, StoreError

OnRows = Callable[[int, int | None], None]


def quietly(_done: int, _of: int | None) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading an archive showed."""

    uri: str
    problem: str | None
    """Why it is not to be relied upon; None: it is what its manifest says."""
    manifest: Manifest | None = None
    """None: there is none, or it cannot be read."""
    manifest_sha256: bytes | None = None

    @property
    def is_whole(self) -> bool:
        """Is everything there, as it was archived?"""
        return self.problem is None


def verify(
    uri: str, *, known: Collection[bytes] = (), on_progress: OnRows = quietly
) -> Verification:
    """Read an archive from its first byte to its last and say what is wrong with it.

    Args:
        uri: The folder of the archive, or its URL.
        known: What the manifest's SHA-256 may be, as the database has it; empty: not asked.
        on_progress: Is called with the rows that were read, and how many there are.

    Raises:
        SettingsError: a URL that cannot be used.
        StoreError: it cannot be read, and so nothing is known of it.
        PartitionError: what reads the URL or the format is not installed.
    """
    store = store_at(uri)
    try:
        manifest, data = manifest_of(store)
    except StoreError:
        raise
    except PartitionError as error:
        return Verification(store.uri, str(error))
    stop_without(manifest.content.format)
    digest = sha256(data).digest()
    problem = _problem(store, manifest, on_progress)
    if known and digest not in known:
        problem = "the manifest is not the one that the database knows of"
    return Verification(store.uri, problem, manifest, digest)


def _problem(store: Store, manifest: Manifest, on_progress: OnRows) -> str | None:
    try:
        check(store, manifest, on_progress)
    except StoreError:
        raise
    except PartitionError as error:
        return str(error)
    return None


def manifest_of(store: Store) -> tuple[Manifest, bytes]:
    """Read the manifest of an archive, and give its bytes too.

    Raises:
        PartitionError: there is none, it cannot be read, or it is not that of this folder.
    """
    if not store.exists(FILE):
        raise PartitionError(
            f"there is no manifest in {store.uri}: the archive was never finished, or it is"
            " somewhere else; `auditlog archive list` shows those that there are"
        )
    with store.reading(FILE) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise PartitionError(f"the manifest in {store.uri} is too long to be one")
    manifest = decode(data)
    if not store.uri.endswith(f"-{manifest.content.digest}"):
        raise PartitionError(
            f"the manifest does not belong in {store.uri}: it was changed, or the folder has"
            f" another name than {manifest.content.folder}"
        )
    return manifest, data


def check(store: Store, manifest: Manifest, on_progress: OnRows = quietly) -> None:
    """Read all of the data.

    Raises:
        PartitionError: it is not what the manifest says.
    """
    for _ in raw_bytes(store, manifest, on_progress):
        pass


def raw_bytes(store: Store, manifest: Manifest, on_progress: OnRows = quietly) -> Iterator[bytes]:
    """Hand on what the server sent when it was archived; only the end tells that it is whole.

    Raises:
        PartitionError: it is not what the manifest says.
    """
    content, sizes, passed = manifest.content, manifest.sizes, Passed()
    if not store.exists(DATA_FILES[content.format]):
        raise PartitionError(f"{DATA_FILES[content.format]} is missing in {store.uri}")
    for chunk in unpack(store, manifest, passed):
        # What swells without end is stopped here.
        agree("bytes of raw data", min(passed.raw.size, sizes.raw_bytes), passed.raw.size)
        yield chunk
        on_progress(passed.rows, content.fingerprint.rows)
    agree("bytes stored", sizes.stored_bytes, passed.stored.size)
    agree("SHA-256 of what is stored", sizes.stored_sha256, passed.stored.sha256)
    agree("bytes of raw data", sizes.raw_bytes, passed.raw.size)
    agree("SHA-256 of raw data", sizes.raw_sha256, passed.raw.sha256)
    agree("rows", content.fingerprint.rows, passed.rows)
