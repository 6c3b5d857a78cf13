import re
from collections.abc import Iterator

import pytest
from raw_client import Client
from servers import SERVERS, Running, serving

TARGETS = (
    "/read",
    "/cookies",
    "/stream",
    "/pathsend",
    "/status?status=404",
    "/status?status=503",
    "/raise-before",
    "/raise-after-start",
    "/raise-in-body",
    "/raise-after-body",
    "/stop-in-body",
    "/never",
    "/starlette/items/42",
    "/starlette/nothing",
    "/starlette/form",
    "/starlette/broken",
)
WRITES = ("/echo", "/read", "/starlette/form")


@pytest.fixture(scope="module", params=SERVERS)
def both(
    request: pytest.FixtureRequest, trail_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Running, Running]]:
    """A server with the application as it is, and one with the middleware around it."""
    folder = tmp_path_factory.mktemp("both")
    with (
        serving(request.param, trail_dsn, folder / "bare", app="served:bare") as bare,
        serving(request.param, trail_dsn, folder / "audited") as audited,
    ):
        yield bare, audited


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_response_is_the_same_byte_for_byte(both: tuple[Running, Running], method: str) -> None:
    """Heads and bodies, chunks and closes, for all that an application may do."""
    for target in TARGETS:
        bare, audited = (_bytes_of(running, target, method=method, body=b"") for running in both)
        assert bare == audited, target


def test_response_to_a_body_is_the_same_byte_for_byte(both: tuple[Running, Running]) -> None:
    """Read by the application or not."""
    for target in WRITES:
        bare, audited = (
            _bytes_of(running, target, method="POST", body=b"x" * 5000) for running in both
        )
        assert bare == audited, target


def _bytes_of(running: Running, target: str, *, method: str, body: bytes) -> bytes:
    client = Client(running.address, "same")
    headers = (b"Connection: close", b"Content-Length: %d" % len(body))
    data = client.read_all(client.head(target, *headers, method=method) + body)
    assert data.startswith(b"HTTP/1.1 ")
    return re.sub(rb"(?im)^date:.*$", b"date:", data)
