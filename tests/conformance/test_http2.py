from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from raw_client import Client
from servers import Running

Rows = Callable[[str], list[dict[str, Any]]]
# What the application does → status, outcome, source, bytes out; and whether it comes to its end
PATHS = {
    "/read": (200, "ok", "wire", 2),
    "/stream": (200, "ok", "wire", 11),
    "/raise-before": (500, "server_error", "derived", None),
    "/never": (500, "server_error", "derived", None),
    "/raise-in-body": (200, "server_error", "wire", 4),
}
BREAKS_OFF = {"/raise-in-body"}


@pytest.fixture
def over_http2(running: Running, client: Client) -> Iterator[httpx.Client]:
    """Speaks HTTP/2 with prior knowledge."""
    with httpx.Client(
        http1=False,
        http2=True,
        trust_env=False,
        base_url=f"http://127.0.0.1:{running.address}",
        headers={"x-request-id": client.request_id},
        timeout=20,
    ) as over_http2:
        yield over_http2


@pytest.mark.parametrize("running", ["hypercorn", "granian"], indirect=True)
@pytest.mark.parametrize("path", PATHS)
def test_row_says_what_happened_over_http2(
    over_http2: httpx.Client, client: Client, rows: Rows, path: str
) -> None:
    """The same as over HTTP/1.1; the host header is made from :authority."""
    if path in BREAKS_OFF:
        with pytest.raises(httpx.RemoteProtocolError):
            over_http2.get(path)
    else:
        assert over_http2.get(path).status_code == PATHS[path][0]
    client.wait_for_rows()
    (row,) = rows(client.request_id)
    metadata = row["metadata"]

    assert PATHS[path] == (
        row["response_status"],
        metadata["audit.outcome"],
        metadata["audit.status_source"],
        metadata.get("http.response.body.size"),
    )
    assert row["request_headers"]["host"][0].startswith("127.0.0.1:")


@pytest.mark.parametrize("running", ["hypercorn"], indirect=True)
def test_trailers_end_the_response(over_http2: httpx.Client, client: Client, rows: Rows) -> None:
    """Over HTTP/2 they are offered, and they pass."""
    answer = over_http2.get("/trailers")
    client.wait_for_rows()
    (row,) = rows(client.request_id)

    assert (answer.status_code, answer.content) == (200, b"ok")
    assert row["metadata"]["audit.outcome"] == "ok"
