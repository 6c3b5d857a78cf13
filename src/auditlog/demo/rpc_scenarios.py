"""What gRPC clients do to the demo's application."""

from auditlog.demo.compare import GRPC
from auditlog.demo.rpc_client import Message
from auditlog.demo.scenario import Clients, Perform, Scenario

_ORDER, _NO_ORDER = {"id": 42}, {"id": 404}
_IMPATIENT_S = 0.1
_DEADLINE_EXCEEDED = 4


def _ask(method: str, message: Message | bytes, user: str | None = None) -> Perform:
    return lambda clients: clients.rpc.ask(method, message, user=user)


def _parts(count: int) -> list[Message]:
    return [{"part": number, "content": "x" * 100} for number in range(count)]


async def _lose_patience(clients: Clients) -> None:
    status = await clients.rpc.ask("Wait", {}, patience_s=_IMPATIENT_S)
    if status != _DEADLINE_EXCEEDED:
        raise ConnectionError(f"a call that takes longer than its deadline ended with {status}")
    # The client's clock rings first, and the server is told of a cancellation: whether that was
    # the deadline it has to conclude from its own clock, and the row says so.


async def _leave_in_the_stream(clients: Clients) -> None:
    await clients.rpc.leave_in_the_stream("Export", {"count": 1000, "pause_s": 0.01})


def _scenario(name: str, weight: int, perform: Perform) -> Scenario:
    return Scenario(f"gRPC {name}", weight, perform, (GRPC,))


RPC_SCENARIOS = (
    _scenario("read", 20, _ask("Read", _ORDER, "alice")),
    _scenario("not found", 3, _ask("Read", _NO_ORDER)),
    _scenario("forbidden", 2, _ask("Delete", _ORDER, "bob")),
    _scenario("delete", 2, _ask("Delete", _ORDER, "alice")),
    _scenario("no JSON", 1, _ask("Read", b"{")),
    _scenario("no such method", 2, _ask("Nothing", {})),
    _scenario("no such service", 1, _ask("/nowhere.v1.Nothing/Nothing", {})),
    _scenario("exception", 2, _ask("Fail", {})),
    _scenario("upload", 3, lambda clients: clients.rpc.upload("Upload", _parts(20))),
    _scenario("talk", 2, lambda clients: clients.rpc.talk("Talk", _parts(3))),
    _scenario("create", 5, _ask("Create", {"item": "lamp"}, "alice")),
    _scenario("unauthenticated", 2, _ask("Create", {"item": "lamp"})),
    _scenario("export", 3, lambda clients: clients.rpc.download("Export", {"count": 20})),
    _scenario("deadline", 2, _lose_patience),
    _scenario("left in the stream", 2, _leave_in_the_stream),
)
