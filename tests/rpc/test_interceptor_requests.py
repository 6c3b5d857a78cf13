"""What a row tells of its request: metadata, peer, certificate, deadline, sizes, messages."""

import asyncio
import subprocess
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import shop_pb2
from rpc_client import Client
from rpc_handlers import SHAPES, handler, make_handler
from rpc_scene import METHOD, Scene, echo, one, scene
from rpc_steps import Send, abort, drain, note, say, send, set_trailing
from rpc_trail import Trail, metadata

from auditlog import Settings
from auditlog.capture.policy import Level, Policy, Rule

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
SECRET = "s3cr3t-of-the-client"
BODIES = Policy([Rule(name="bodies", level=Level.BODY)])
EVERY_HEADER = ("authorization", "cookie", "x-list", "x-data-bin", "x-api-key", "x-note")


def everything_kept() -> Trail:
    return Trail(Settings(capture_headers=EVERY_HEADER))


def test_metadata_is_kept_by_allow_list_with_its_duplicates(rpc_server: str) -> None:
    """In their order; bytes as base64, as they went on the wire."""
    sent = (
        ("x-list", "one"),
        ("x-other", "not on the list"),
        ("x-list", "two"),
        ("x-data-bin", b"\x00\xff"),
    )
    with scene(rpc_server, echo(rpc_server), audit=everything_kept()) as ours:
        row = ours.row_of(metadata=sent)

    assert row.request_headers is not None
    assert row.request_headers["x-list"] == ["one", "two"]
    assert row.request_headers["x-data-bin"] == ["AP8="]
    assert "x-other" not in row.request_headers


def test_secrets_are_redacted_even_on_the_allow_list(rpc_server: str) -> None:
    """Nothing of them is anywhere in the row."""
    sent = (
        ("authorization", f"Bearer {SECRET}"),
        ("cookie", f"session={SECRET}"),
        ("x-api-key", SECRET),
    )
    with scene(rpc_server, echo(rpc_server), audit=everything_kept()) as ours:
        row = ours.row_of(metadata=sent)

    assert row.request_headers is not None
    assert {"authorization", "cookie", "x-api-key"} <= row.request_headers.keys()
    assert SECRET not in repr(row)


def test_correlation_is_taken_from_the_metadata(rpc_server: str) -> None:
    with scene(rpc_server, echo(rpc_server)) as ours:
        client = Client(ours.channel, "request-of-mine")
        client.call(METHOD, "uu", metadata=(("traceparent", TRACEPARENT),))
        row = ours.trail.one("request-of-mine")

    said = metadata(row)
    assert (said["trace_id"], said["span_id"]) == (TRACE_ID, SPAN_ID)
    assert row.request_headers is not None
    assert row.request_headers["traceparent"] == [TRACEPARENT]
    assert row.request_headers["user-agent"][0].startswith("grpc-python/")


def test_huge_metadata_is_cut_in_the_row_only(rpc_server: str) -> None:
    """The handler sees all of it."""
    received = []

    def look(call: Any) -> None:
        received.append(dict(call.context.invocation_metadata())["x-note"])

    huge = "x" * 7000
    with scene(rpc_server, one(rpc_server, look), audit=everything_kept()) as ours:
        row = ours.row_of(metadata=(("x-note", huge),))

    assert received == [huge]
    assert row.response_status == 0


def test_upper_case_is_refused_by_the_client_itself(rpc_server: str) -> None:
    """No RPC, no row."""
    with scene(rpc_server, echo(rpc_server)) as ours:
        seen = ours.call(metadata=(("X-Upper", "1"),))
        ours.running.stop(0)

        assert (seen.code, seen.details) == (13, "Invalid metadata")
        assert ours.trail.rows() == []


@pytest.mark.parametrize(
    ("address", "peer"),
    [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("unix:{}/socket", None)],
)
def test_peer_is_an_address_where_there_is_one(
    rpc_server: str, address: str, peer: str | None, tmp_path: Path
) -> None:
    with scene(rpc_server, echo(rpc_server), address=address.format(tmp_path)) as ours:
        said = ours.metadata_of()

    assert said.get("network.peer.address") == peer
    assert said.get("client.address") == peer


def test_deadline_is_recorded(rpc_server: str) -> None:
    """As long as the client was ready to wait, in milliseconds; without one, nothing."""
    with scene(rpc_server, echo(rpc_server)) as ours:
        with_deadline = ours.metadata_of(timeout=30)
        without = ours.metadata_of(timeout=None)

    assert 29_000 < with_deadline["audit.deadline_ms"] <= 30_100
    assert "audit.deadline_ms" not in without


@pytest.mark.parametrize("kind", ["uu", "us", "su", "ss"])
def test_messages_and_bytes_are_counted(rpc_server: str, kind: str) -> None:
    """Both ways, in every shape; a single message is not worth a count."""
    sends = [note("x" * size).SerializeToString() for size in (0, 10, 300)]
    answers = [note("y" * size) for size in (5, 500)]
    for shape in SHAPES[rpc_server][kind]:
        steps = (drain, *(send(answer.text) for answer in answers))
        with scene(rpc_server, {METHOD: handler(kind, shape, steps)}) as ours:
            said = ours.metadata_of(kind=kind, sends=sends)
        sent = answers if kind[1] == "s" else answers[-1:]
        received = sends if kind[0] == "s" else sends[:1]

        assert said["audit.bytes_in"] == sum(map(len, received)), shape
        assert said["audit.bytes_out"] == sum(each.ByteSize() for each in sent), shape
        counts = (said.get("audit.messages_in"), said.get("audit.messages_out"))
        assert counts == ((len(received), len(sent)) if kind != "uu" else (None, None)), shape


ORDER = shop_pb2.Order(
    order_id="7",
    status=shop_pb2.STATUS_SHIPPED,
    total_cents=2**53 + 1,
    ship_to=shop_pb2.Address(street="Main Street", city="Springfield"),
    items=[shop_pb2.Item(sku="a", quantity=2), shop_pb2.Item(sku="b")],
    labels={"colour": "red", "password": SECRET},
    payment=shop_pb2.Payment(card_token=SECRET, amount_cents=5),
)


def orders(server: str, kind: str) -> dict[str, grpc.RpcMethodHandler]:
    """A method whose messages are orders both ways."""
    steps = (drain, *[Send(ORDER)] * (2 if kind[1] == "s" else 1))
    return {
        METHOD: handler(
            kind,
            SHAPES[server][kind][0],
            steps,
            serializer=shop_pb2.Order.SerializeToString,
            deserializer=shop_pb2.Order.FromString,
        )
    }


def test_bodies_are_json_at_level_body_and_redacted(rpc_server: str) -> None:
    """As protobuf itself says them; what has a secret's name is hidden."""
    with scene(
        rpc_server, orders(rpc_server, "uu"), interceptor_options={"policy": BODIES}
    ) as ours:
        row = ours.row_of(sends=[ORDER.SerializeToString()])

    text = repr(row)
    for part in ("Main Street", "STATUS_SHIPPED", str(2**53 + 1), "colour"):
        assert text.count(part) == 2, part
    assert SECRET not in text


def test_bodies_of_streams_are_lists(rpc_server: str) -> None:
    with scene(
        rpc_server, orders(rpc_server, "ss"), interceptor_options={"policy": BODIES}
    ) as ours:
        row = ours.row_of(kind="ss", sends=[ORDER.SerializeToString()] * 3)

    text = repr(row)
    assert text.count("Main Street") == 5
    assert SECRET not in text


def test_no_message_is_stored_below_level_body(rpc_server: str) -> None:
    """Which is what the default policy asks for."""
    with scene(rpc_server, orders(rpc_server, "uu")) as ours:
        row = ours.row_of(sends=[ORDER.SerializeToString()])

    assert "Main Street" not in repr(row)
    assert not any("body" in key for key in metadata(row))


def test_bodies_are_capped(rpc_server: str) -> None:
    """However many messages a stream has."""
    sends = [note("x" * 1000).SerializeToString()] * 200
    steps = (drain, *(send("y" * 1000) for _ in range(200)))
    with scene(
        rpc_server,
        {METHOD: handler("ss", SHAPES[rpc_server]["ss"][0], steps)},
        audit=Trail(Settings(max_body_bytes=4096)),
        interceptor_options={"policy": BODIES},
    ) as ours:
        row = ours.row_of(kind="ss", sends=sends)

    assert len(repr(row)) < 16 * 1024
    assert metadata(row)["audit.messages_in"] == metadata(row)["audit.messages_out"] == 200


def test_bytes_without_protobuf_are_no_json(rpc_server: str) -> None:
    """And break nothing."""
    with scene(rpc_server, echo(rpc_server), interceptor_options={"policy": BODIES}) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, "uu", (b"\xff\x00",))
        row = ours.trail.one(client.request_id)

    assert (seen.code, seen.messages) == (0, (b"\xff\x00",))
    assert row.response_status == 0


def test_trailing_metadata_is_stored_by_allow_list(rpc_server: str) -> None:
    """Of a rich status, the row tells that there was one."""
    steps = (set_trailing(("x-note", "kept"), ("x-other", "not"), ("x-api-key", SECRET)),)
    with scene(rpc_server, one(rpc_server, *steps), audit=everything_kept()) as ours:
        said = ours.metadata_of()

    assert said["rpc.response.metadata.x-note"] == ["kept"]
    assert "rpc.response.metadata.x-other" not in said
    assert SECRET not in repr(said)


def test_secret_at_the_cut_of_the_details_is_hidden(rpc_server: str) -> None:
    """Half a URL does not look like one."""
    details = f"{'x' * 2010} postgresql://bob:{SECRET}{SECRET}@host/shop"
    steps = (abort(grpc.StatusCode.NOT_FOUND, details),)
    with scene(rpc_server, one(rpc_server, *steps)) as ours:
        said = ours.metadata_of()

    assert said["audit.status_details"].startswith("x" * 2010)
    assert len(said["audit.status_details"]) <= 2048
    assert SECRET[:8] not in said["audit.status_details"]


@pytest.mark.parametrize(
    "method",
    [f"/rpc.Scene/Method?access_token={SECRET}", f"/rpc.Scene?access_token={SECRET}/Method"],
)
def test_secrets_in_the_name_of_a_method_are_hidden(rpc_server: str, method: str) -> None:
    """There is no such method, but there is a row."""
    with scene(rpc_server, echo(rpc_server)) as ours:
        row = ours.row_of(method)

    assert row.response_status == 12
    assert row.request_url is not None
    assert row.request_url.startswith("/rpc.Scene")
    assert SECRET not in repr(row)


def test_local_credentials_name_no_user(rpc_server: str) -> None:
    """Their only identity is the kind of the connection."""
    local = grpc.LocalConnectionType.LOCAL_TCP
    credentials = grpc.local_server_credentials(local)
    channel_credentials = grpc.local_channel_credentials(local)
    for shape in SHAPES[rpc_server]["uu"]:
        with scene(
            rpc_server,
            {METHOD: handler("uu", shape, (send("a"),))},
            credentials=credentials,
            channel_credentials=channel_credentials,
        ) as ours:
            row = ours.row_of()

        assert (row.response_status, row.user_id) == (0, None)
        assert metadata(row)["network.peer.address"] == "127.0.0.1"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server for localhost, and a client called alice."""
    folder = tmp_path_factory.mktemp("certificates")
    _openssl(
        folder,
        "req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority",
    )
    for name, subject, extension in (
        ("server", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ("client", "/CN=alice", "subjectAltName=DNS:alice.example"),
        ("nameless", "/CN=bob", "basicConstraints=CA:FALSE"),
    ):
        (folder / f"{name}.cnf").write_text(extension)
        _openssl(
            folder,
            f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj {subject}",
        )
        _openssl(
            folder,
            f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial"
            f" -out {name}.pem -days 2 -extfile {name}.cnf",
        )
    return folder


def _openssl(folder: Path, arguments: str) -> None:
    command = ["openssl", *arguments.split()]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def secure_scene(server: str, folder: Path, client: str, *steps: Any, **options: Any) -> Any:
    def read(name: str) -> bytes:
        return (folder / name).read_bytes()

    return scene(
        server,
        one(server, *steps),
        credentials=grpc.ssl_server_credentials(
            [(read("server.key"), read("server.pem"))], read("ca.pem"), require_client_auth=True
        ),
        channel_credentials=grpc.ssl_channel_credentials(
            read("ca.pem"), read(f"{client}.key"), read(f"{client}.pem")
        ),
        **options,
    )


@pytest.mark.parametrize(("client", "name"), [("client", "alice.example"), ("nameless", "bob")])
def test_certificate_names_the_user(
    rpc_server: str, certificates: Path, client: str, name: str
) -> None:
    """By its alternative name, or else its common name, as gRPC itself has it."""
    ours: Scene
    with secure_scene(rpc_server, certificates, client) as ours:
        row = ours.row_of()

    assert (row.response_status, row.user_id) == (0, name)


def test_handler_has_the_last_word_about_the_user(rpc_server: str, certificates: Path) -> None:
    with secure_scene(rpc_server, certificates, "client", say(user_id="bob")) as ours:
        assert ours.row_of().user_id == "bob"


def test_callable_is_asked_before_the_certificate(rpc_server: str, certificates: Path) -> None:
    """And a handler before the callable."""
    options = {"user_id": lambda context: dict(context.invocation_metadata())["x-user"]}
    with secure_scene(rpc_server, certificates, "client", interceptor_options=options) as ours:
        assert ours.row_of(metadata=(("x-user", "carol"),)).user_id == "carol"


def test_callables_name_user_tenant_and_organisation(rpc_server: str) -> None:
    """Asked with the RPC's context, whose kind of handler and end it may be."""
    options = {
        name: lambda context, key=key: dict(context.invocation_metadata()).get(key)
        for name, key in (
            ("user_id", "x-user"),
            ("instance_id", "x-tenant"),
            ("resource_owner", "x-owner"),
        )
    }
    sent = (("x-user", "alice"), ("x-tenant", "acme"), ("x-owner", "sales"))
    with scene(rpc_server, one(rpc_server, drain), interceptor_options=options) as ours:
        for method in (METHOD, "/rpc.Scene/Unknown"):
            row = ours.row_of(method, metadata=sent)

            assert (row.user_id, row.instance_id, row.resource_owner) == ("alice", "acme", "sales")


def test_time_is_measured(rpc_server: str) -> None:
    with scene(rpc_server, {METHOD: make_handler("uu", _slow(rpc_server), raw=True)}) as ours:
        row = ours.row_of()

    assert row.response_time_ms is not None
    assert 50 <= row.response_time_ms < 5_000


def _slow(server: str) -> Any:
    async def slow_async(request: Any, context: Any) -> Any:
        await asyncio.sleep(0.06)
        return request

    def slow(request: Any, context: Any) -> Any:
        time.sleep(0.06)
        return request

    return slow_async if server == "aio" else slow
