"""Archives behind URLs: the same road, through fsspec; S3 is a server that speaks its protocol."""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import psycopg
import pytest

from archive_scene import (
    FORMATS,
    LEAF,
    LOWER,
    UPPER,
    archived,
    ask,
    data_file,
    fill,
    grow,
    make_leaf,
)
from auditlog.errors import PartitionError, SettingsError
from auditlog.partitions.archive import archive, found, restore, verify
from auditlog.partitions.archive.manifest import DATA_FILES
from auditlog.partitions.archive.storage import store_at
from auditlog.partitions.archive.store import StoreError
from auditlog.partitions.session import maintenance

Conn = psycopg.Connection[Any]


@pytest.fixture
def conn(any_dsn: str) -> Iterator[Conn]:
    """Maintenance of a database that has a leaf with awkward rows."""
    with maintenance(any_dsn) as connection:
        make_leaf(connection)
        fill(connection)
        yield connection


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A URL of each scheme."""
    if request.param == "s3":
        return str(request.getfixturevalue("bucket"))
    folder = tmp_path_factory.mktemp("remote")
    return f"{request.param}://{folder}"


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of an S3 server on this machine."""
    import s3fs  # noqa: PLC0415  # slow, and so is the next
    from moto.server import ThreadedMotoServer  # noqa: PLC0415

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }.items():
            environment.setenv(name, value)
        s3fs.S3FileSystem().mkdir("trail")
        yield "s3://trail/archive"
        s3fs.S3FileSystem.clear_instance_cache()
    running.stop()


@pytest.mark.parametrize("place", ["memory", "file", "s3"], indirect=True)
def test_archive_goes_to_a_url_and_back(conn: Conn, place: str) -> None:
    """In each format; a second run takes what is there, and damage is told."""
    for fmt in FORMATS:
        made = archived(conn, place, fmt)
        assert verify(made.uri).is_whole
        assert archived(conn, place, fmt) == made
        assert restore(conn, made.uri, into=f"from_{fmt}").rows == made.fingerprint.rows
        overwrite(f"{made.uri}/{DATA_FILES[fmt]}", b"other")
        assert not verify(made.uri).is_whole
        with pytest.raises(PartitionError, match="move that folder away"):
            archived(conn, place, fmt)
    assert len(found(place)) == len(FORMATS)
    assert not any(each.problem for each in found(place))


@pytest.mark.parametrize("place", ["memory"], indirect=True)
def test_unfinished_upload_is_replaced(conn: Conn, place: str) -> None:
    """Data without a manifest, as a kill leaves it."""
    made = archived(conn, place)
    fsspec.open(made.uri).fs.rm(f"{made.uri}/manifest.json")
    overwrite(f"{made.uri}/data.copy.gz", b"half")
    assert "never finished" in str(found(place)[0].problem)
    assert archived(conn, place).uri == made.uri
    assert verify(made.uri).is_whole


def test_upload_that_fails_leaves_no_object(conn: Conn, bucket: str) -> None:
    """Nor parts of one, which would be paid for."""
    store = store_at(f"{bucket}/logs/x")

    def fail() -> None:
        with store.writing("data.copy.gz") as file:
            file.write(bytes(20_000_000))
            raise ZeroDivisionError

    with pytest.raises(PartitionError, match="ZeroDivisionError"):
        fail()
    gc.collect()
    assert not store.exists("data.copy.gz")


def test_bucket_that_is_not_there_is_told(conn: Conn, bucket: str) -> None:
    """With what there is to check, and no traceback of the store's."""
    with pytest.raises(PartitionError, match="check the URL, the credentials and the network"):
        archived(conn, bucket.replace("trail", "nobody-has-it"))
    assert ask(conn, "SELECT 1") == 1


def test_lost_database_is_no_failure_of_the_store(conn: Conn, any_dsn: str) -> None:
    """Whoever reads the message must look at the right end."""

    def end(_done: int, _of: int | None) -> None:
        with psycopg.connect(any_dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", [conn.info.backend_pid])

    grow(conn, 200_000)
    with pytest.raises(psycopg.OperationalError):
        archive(
            conn, LEAF, table="logs", lower=LOWER, upper=UPPER, to="memory://lost", on_progress=end
        )


@pytest.mark.parametrize("missing", ["fsspec", "pyarrow"])
def test_missing_extra_is_named(
    conn: Conn, monkeypatch: pytest.MonkeyPatch, missing: str, tmp_path_factory: Any
) -> None:
    """With the line that installs it, before anything was made."""
    monkeypatch.setitem(sys.modules, missing, None)
    to = "memory://x" if missing == "fsspec" else str(tmp_path_factory.mktemp("to"))
    with pytest.raises(PartitionError, match="pip install 'auditlog-postgres"):
        archived(conn, to, "parquet")


def test_what_cannot_be_read_is_no_damage(
    conn: Conn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Or an archive that is well would be made again, and its partition kept."""
    made = archived(conn, tmp_path, "parquet")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(PartitionError, match="pip install 'auditlog-postgres"):
            verify(made.uri)
    file = data_file(made)
    file.rename(file.with_name("kept"))
    file.mkdir()
    with pytest.raises(StoreError, match="check the path and its permissions"):
        verify(made.uri)
    with pytest.raises(StoreError):
        archived(conn, tmp_path, "parquet")


def test_unknown_scheme_is_told() -> None:
    """And it is no traceback."""
    with pytest.raises(SettingsError, match="is no place for an archive"):
        store_at("nosuchthing://x")


@pytest.mark.parametrize(
    "url", ["ftp://user:hunter2@host/x", "simplecache::ftp://:hunter2@host/x", "s3://[:hunter2@/x"]
)
def test_password_in_a_url_is_refused(url: str) -> None:
    """URLs of archives are stored and shown; and the message does not repeat it."""
    with pytest.raises(SettingsError) as refused:
        store_at(url)
    assert "hunter2" not in str(refused.value)


def overwrite(url: str, data: bytes) -> None:
    """Change an object behind the archive's back."""
    with fsspec.open(url, "wb") as file:
        file.write(data)
