"""Whatever breaks in the audit, the RPC never notices."""

import asyncio
from typing import Any, Never

import pytest
from grpc import StatusCode, insecure_channel
from rpc_client import Client
from rpc_handlers import SHAPES, Handlers, handler
from rpc_interceptors import interceptor
from rpc_scene import METHOD, every_shape, one, scene
from rpc_servers import serving
from rpc_steps import Send, abort, drain, fail, say, send
from rpc_trail import Trail, metadata

from auditlog import LogRecord, Outcome, annotate
from auditlog.capture.policy import Level, Policy, Rule
from auditlog.records import Record
from hostile import OBJECTS

STEPS = (drain, send("a"), say(step="said"), send("b"))


class BrokenTrail(Trail):
    """Its `submit` raises, which a log never does."""

    def submit(self, record: Record) -> Outcome:
        raise RuntimeError("broken")

    def lose(self, error: BaseException) -> None:
        self.errors.append(error)


class BrokenToTheEnd(BrokenTrail):
    def lose(self, error: BaseException) -> None:
        raise RuntimeError("broken")


class BrokenPolicy(Policy):
    def decide(self, *_: Any) -> Never:
        raise RuntimeError("broken")


class BrokenEarly(Policy):
    def wants_body(self, *_: Any) -> Never:
        raise RuntimeError("broken")


def compare(server: str, **options: Any) -> Trail:
    """Make every kind of RPC audited and bare; what the client sees is the same."""
    methods = {}
    for end, last in (
        ("return", send("c")),
        ("abort", abort(StatusCode.NOT_FOUND, "gone")),
        ("raise", fail(RuntimeError)),
    ):
        methods.update(
            {f"{method}.{end}": each for method, each in every_shape(server, *STEPS, last).items()}
        )
    handlers = {method: each for method, (_, each) in methods.items()}
    with (
        scene(server, handlers, **options) as ours,
        serving(server, [Handlers(handlers)]) as bare,
        insecure_channel(bare.target) as channel,
    ):
        for method, (kind, _) in [*methods.items(), ("/rpc.Scene/Unknown", ("uu", None))]:
            seen = Client(ours.channel).call_until_it_ends(method, kind)
            assert seen == Client(channel).call_until_it_ends(method, kind), method
        ours.running.stop(0)
        return ours.trail


def count_of(server: str) -> int:
    """How many RPCs `compare` makes, unless one has to be made again."""
    return 3 * sum(map(len, SHAPES[server].values())) + 1


def test_log_that_raises(rpc_server: str) -> None:
    """Is told of each row that is lost with it."""
    lost = compare(rpc_server, audit=BrokenTrail()).errors

    assert len(lost) >= count_of(rpc_server)


def test_log_that_cannot_even_be_told(rpc_server: str) -> None:
    """The handler is found all the same, of details that nobody has seen before."""
    ours = interceptor(rpc_server, BrokenToTheEnd())
    found = object()

    async def find(_: object) -> object:
        return found

    if rpc_server == "aio":
        assert asyncio.run(ours.intercept_service(find, object())) is found
    else:
        assert ours.intercept_service(lambda _: found, object()) is found


@pytest.mark.parametrize("policy", [BrokenPolicy, BrokenEarly])
def test_policy_that_raises(rpc_server: str, policy: type[Policy]) -> None:
    """What is certain is recorded."""
    trail = compare(rpc_server, interceptor_options={"policy": policy()})

    assert len(trail.rows()) + len(trail.errors) >= count_of(rpc_server)


@pytest.mark.parametrize("name", ["user_id", "instance_id", "resource_owner"])
def test_callable_that_raises(rpc_server: str, name: str) -> None:
    """Names nobody; the row is whole otherwise."""

    def identify(_: Any) -> Never:
        raise RuntimeError("broken")

    trail = compare(rpc_server, interceptor_options={name: identify})
    rows = trail.rows()

    assert len(rows) >= count_of(rpc_server)
    assert all(getattr(row, name) is None for row in rows)
    assert all(row.response_status is not None for row in rows)


@pytest.mark.parametrize("answer", [5, b"alice", "", "x" * 10_000, "a\0\ud800", object()])
def test_callable_that_answers_oddly(rpc_server: str, answer: Any) -> None:
    with scene(
        rpc_server,
        one(rpc_server, drain, send("a")),
        interceptor_options={"user_id": lambda _: answer},
    ) as ours:
        row = ours.row_of()

    assert row.response_status == 0


def test_callable_may_not_be_a_coroutine(rpc_server: str) -> None:
    """Refused when it is given, not at the first RPC."""

    async def identify(_: Any) -> str:
        return "alice"

    with (
        pytest.raises(Exception, match="user_id"),
        scene(rpc_server, {}, interceptor_options={"user_id": identify}),
    ):
        pass


@pytest.mark.parametrize("kind", ["uu", "ss"])
def test_hostile_annotations(rpc_server: str, kind: str) -> None:
    """Values whose methods raise, lie or never end; each RPC has its row."""
    shape = SHAPES[rpc_server][kind][0]
    methods = {
        f"/rpc.Hostile/{number}": handler(
            kind, shape, (lambda _, value=value: annotate(user_id=value, aggregate=value, a=value),)
        )
        for number, value in enumerate(OBJECTS)
    }
    with scene(rpc_server, methods) as ours:
        for method in methods:
            assert ours.call(method, kind).code == 0
        ours.running.stop(0)

        assert [row.request_url for row in ours.trail.rows()] == list(methods)


class Raising:
    """What a serializer may be given: the parts that an auditor would look at raise."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802  # protobuf's name
        return self._data

    def _refuse(self, *_: Any) -> Never:
        raise RuntimeError("no")

    DESCRIPTOR = property(_refuse)
    __repr__ = __str__ = __len__ = __bool__ = __eq__ = __iter__ = __getattr__ = _refuse  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


def test_hostile_messages(rpc_server: str) -> None:
    """At the level where bodies are recorded."""
    hostile = Raising(b"answer")
    methods = {
        METHOD: handler(
            "ss",
            SHAPES[rpc_server]["ss"][0],
            (drain, Send(hostile), Send(hostile)),
            serializer=lambda message: message.SerializeToString(),
            deserializer=Raising,
        )
    }
    policy = Policy([Rule(name="bodies", level=Level.BODY)])
    with scene(rpc_server, methods, interceptor_options={"policy": policy}) as ours:
        client = Client(ours.channel)
        seen = client.call(METHOD, "ss", [b"one", b"two"])
        row: LogRecord = ours.trail.one(client.request_id)

    assert (seen.code, seen.messages) == (0, (b"answer", b"answer"))
    assert row.response_status == 0
    assert metadata(row)["audit.messages_in"] == 2
