"""Rows that are durable before the answer, as clients of real servers see it."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import websockets.exceptions
import websockets.sync.client
from raw_client import Answer, Client, Connection
from servers import SERVERS, Running, serving
from test_transparent import TARGETS, WRITES, _bytes_of

APP, BARE = "durable_served:app", "served:bare"
ANSWERS = ("/read", "/stream", "/length", "/file", "/status?status=204", "/status?status=404")
NO_DSN = "postgresql://nowhere.invalid/"


@pytest.fixture(scope="module", params=SERVERS)
def which(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def spool(which: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("spool") / "log"
    with serving(which, NO_DSN, log, app=APP, DURABILITY="spool") as running:
        yield running


@pytest.fixture(scope="module")
def commit(which: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("commit") / "log"
    with serving(which, NO_DSN, log, app=APP, DURABILITY="commit") as running:
        yield running


@pytest.fixture
def client(commit: Running, request: pytest.FixtureRequest) -> Client:
    return Client(commit.address, _id(request.node.name))


def _id(name: str) -> str:
    return re.sub(r"[^\w-]", "-", name)[:100]


def _stages(client: Client) -> list[str | None]:
    """Which rows of a client's request there are."""
    answer = Client(client.address, "control").ask(f"/-/stages/{client.request_id}")
    assert answer is not None
    return list(json.loads(answer.body))


def _durable(*ends: str) -> bytes:
    return b"X-Durable: " + ",".join(ends).encode()


def _problem(answer: Answer | None) -> dict[str, object]:
    assert answer is not None
    assert answer.status == 503
    assert answer.all("content-type") == ["application/problem+json"]
    problem = dict(json.loads(answer.body))
    assert (problem["type"], problem["status"]) == ("about:blank", 503)
    return problem


@pytest.mark.parametrize("target", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_row_is_in_the_spool_when_the_client_has_its_answer(
    spool: Running, target: str, method: str
) -> None:
    """The application is still at work then."""
    client = Client(spool.address, _id(f"{method}-{target}"))
    with client.connect() as connection:
        connection.send(client.head(f"/after{target}", method=method))
        answer = connection.read_answer(to_head=method == "HEAD")
        there = _stages(client)
        client.control("reached")
        client.control("release")

    assert answer is not None
    assert there == [None]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", ["/read", "/status?status=204", "/status?status=404"])
def test_no_byte_is_sent_before_the_row_is_committed(
    client: Client, target: str, method: str
) -> None:
    """An answer in one piece waits as a whole."""
    with client.connect() as connection:
        connection.send(client.head(target, _durable("yes", "gate"), method=method))
        client.control("reached")
        stages, early = _stages(client), _at_hand(connection)
        client.control("release")
        answer = connection.read_answer(to_head=method == "HEAD")

    assert (stages, early) == (["received", "complete"], b"")
    assert answer is not None
    assert answer.status in {200, 204, 404}


def test_stream_goes_on_but_for_its_end(client: Client) -> None:
    """The chunks are there before the row."""
    with client.connect() as connection:
        connection.send(client.head("/stream", _durable("yes", "gate")))
        client.control("reached")
        early = connection.read_until(b"three\r\n")
        late = _at_hand(connection)
        client.control("release")
        rest = connection.read_until(b"0\r\n\r\n")

    assert early.startswith(b"HTTP/1.1 200 ")
    assert (late, rest) == (b"", b"0\r\n\r\n")


def _at_hand(connection: Connection) -> bytes:
    """What the server has sent by now."""
    connection._socket.setblocking(False)
    try:
        return connection._data + connection._socket.recv(1)
    except BlockingIOError:
        return connection._data
    finally:
        connection._socket.settimeout(20)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize(
    ("ends", "retry"), [(("no",), ["2"]), (("yes", "no"), [])], ids=["request", "answer"]
)
def test_refusal_leaves_the_connection_usable(
    client: Client, method: str, ends: tuple[str, ...], retry: list[str]
) -> None:
    """503 and why; the next request on the same connection is served."""
    headers = [_durable(*ends)]
    if method == "POST":
        headers.append(b"Content-Length: 0")
    with client.connect() as connection:
        connection.send(client.head("/read", *headers, method=method))
        answer = connection.read_answer(to_head=method == "HEAD")
        assert answer is not None
        connection.send(client.head("/read"))
        following = connection.read_answer()

    if method == "HEAD":
        assert (answer.status, answer.body) == (503, b"")
    else:
        _problem(answer)
    assert answer.all("retry-after") == retry
    assert following is not None
    assert (following.status, following.body) == (200, b"ok")


def test_refusal_of_an_upload_reaches_its_client(client: Client) -> None:
    """The application does not run, and nobody reads the body."""
    answer = client.ask("/echo", _durable("no"), method="POST", body=b"x" * 5000)

    _problem(answer)
    assert _stages(client) == ["received", "complete"]


@pytest.mark.parametrize("target", ["/stream", "/file", "/length"])
def test_stream_that_is_not_audited_never_ends_well(client: Client, target: str) -> None:
    """The connection is cut in the middle: no last chunk, fewer bytes than were announced."""
    data = client.read_all(client.head(target, _durable("yes", "no")))

    assert data.startswith(b"HTTP/1.1 200 ")
    assert not data.endswith((b"0\r\n\r\n", b"whle"))
    assert _stages(client) == ["received", "complete", "late"]


@pytest.mark.parametrize("which", ["hypercorn", "granian"], indirect=True)
def test_refusals_and_breaks_reach_clients_of_http2_too(client: Client) -> None:
    """A stream that is broken off is reset."""
    with httpx.Client(
        http1=False,
        http2=True,
        trust_env=False,
        base_url=f"http://127.0.0.1:{client.address}",
        headers={"x-request-id": client.request_id},
    ) as over_http2:
        for ends in ("no", "yes,no"):
            refused = over_http2.get("/read", headers={"x-durable": ends})
            assert (refused.status_code, refused.json()["status"]) == (503, 503)
        with pytest.raises(httpx.RemoteProtocolError):
            over_http2.get("/stream", headers={"x-durable": "yes,no"})
        assert over_http2.get("/stream").text == "onetwothree"


def test_answer_of_an_outer_layer_waits_for_the_row(client: Client) -> None:
    """Starlette's own, which tells of the error."""
    with client.connect() as connection:
        connection.send(client.head("/outer/broken", _durable("yes", "gate")))
        client.control("reached")
        early = _at_hand(connection)
        client.control("release")
        answer = connection.read_answer()

    assert early == b""
    assert answer is not None
    assert (answer.status, answer.body) == (500, b"Internal Server Error")


def test_error_that_is_not_audited_is_refused(client: Client) -> None:
    """By the middleware: the outer layer finds an answer given."""
    _problem(client.ask("/outer/broken", _durable("yes", "no")))


def test_websocket_is_refused_before_it_is_accepted(client: Client) -> None:
    """With 503, which every one of these servers lets an application send."""
    headers = {"x-durable": "no"}
    with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
        _socket(client, "/ws/echo", headers)

    assert refused.value.response.status_code == 503
    assert _stages(client) == ["received", "complete"]


def test_websocket_that_is_not_audited_is_closed_with_1013(client: Client) -> None:
    """What went before the close has been delivered."""
    with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
        _socket(client, "/ws/close?code=1000", {"x-durable": "yes,no"})

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013


def _socket(client: Client, target: str, headers: dict[str, str]) -> None:
    with websockets.sync.client.connect(
        f"ws://127.0.0.1:{client.address}{target}",
        additional_headers={"x-request-id": client.request_id, **headers},
        proxy=None,
    ) as connection:
        while True:
            connection.recv()


def test_fifty_at_once_have_their_own_rows_and_answers(client: Client) -> None:
    """Every third is refused, every third withheld."""

    def ask(number: int) -> tuple[int | None, list[str | None]]:
        own = Client(client.address, f"{client.request_id}-{number}")
        ends = (("yes", "yes"), ("no",), ("yes", "no"))[number % 3]
        answer = own.ask("/read", _durable(*ends))
        return answer and answer.status, _stages(own)

    with ThreadPoolExecutor(50) as pool:
        found = list(pool.map(ask, range(50)))

    expected = [
        (200, ["received", "complete"]),
        (503, ["received", "complete"]),
        (503, ["received", "complete", "late"]),
    ]
    assert found == [expected[number % 3] for number in range(50)]


@pytest.mark.parametrize("durability", ["spool", "commit"])
def test_answers_are_the_same_byte_for_byte(
    which: str, durability: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Heads and bodies, chunks and closes, for all that an application may do."""
    audited: Running = request.getfixturevalue(durability)
    with serving(which, NO_DSN, tmp_path / "log", app=BARE) as bare:
        for method, targets in (("GET", TARGETS), ("HEAD", TARGETS), ("POST", WRITES)):
            for target in targets:
                body = b"x" * 5000 if method == "POST" else b""
                expected, found = (
                    _bytes_of(running, target, method=method, body=body)
                    for running in (bare, audited)
                )
                assert expected == found, f"{method} {target}"
