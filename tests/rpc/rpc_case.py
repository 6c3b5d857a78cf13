"""A row of the table: what a handler does, what its client sees, and what the row then says.

The same over both servers and every shape of a handler; `on` holds what is different on one.
Recorded from the bare servers on 2026-11-25 with grpcio 1.85.3 and protobuf 7.36.2.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import shop_pb2
from rpc_client import Client, Seen
from rpc_handlers import SHAPES
from rpc_steps import OVER, Step, hang, note

EVERY_KIND = ("uu", "us", "su", "ss")
# For what does not depend on the kind.
ONE_AND_MANY = ("uu", "ss")
STREAMED_ANSWERS = ("us", "ss")
STREAMED_REQUESTS = ("su", "ss")
SERVICE = "/rpc.Cases/"
SENDS = (note("first").SerializeToString(), note("second").SerializeToString())
# For an RPC that ends by its deadline and no other way.
SHORT_S = 0.1
DEADLINE = 4
# The server breaks off without a word, and the client waits for its deadline.
SILENCE = {
    "code": DEADLINE,
    "derived": True,
    "timeout": SHORT_S,
    "comparable": False,
}

Talk: TypeAlias = Callable[[Client, str, str, Sequence[bytes]], Seen]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One RPC.

    What the client sees: `code` and `details` (None: those of grpcio, which only the comparison
    with a bare server looks at). What the row says: the same code, from the wire, or `derived`
    where the table allows it. `row` is the row's status where the client makes up its own: `...`
    where no status was sent at all, of which the row must say that it was derived. `error` is the
    row's `error.type`; `...` where the interpreter's words change.
    """

    name: str
    steps: Sequence[Step]
    code: int = 0
    details: str | None = None
    row: Any = None
    derived: bool = False
    error: Any = None
    outcome: Any = None
    on: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kinds: Sequence[str] = EVERY_KIND
    servers: Sequence[str] = ("aio", "threaded")
    sends: Sequence[bytes] = SENDS
    timeout: float | None = 10.0
    serializer: Any = shop_pb2.Note.SerializeToString
    deserializer: Any = shop_pb2.Note.FromString
    talk: Talk | None = None
    """What the client does, if it does not simply call."""
    comparable: bool = True
    """Is what the client sees the same each time?"""

    @property
    def is_deadline(self) -> bool:
        """May the server take it for a client that left? The client's clock is a little ahead."""
        return self.code == DEADLINE and self.derived


@dataclass(frozen=True)
class Row:
    """A case on one server, in one kind and shape."""

    case: Case
    server: str
    kind: str
    shape: str

    @property
    def method(self) -> str:
        return f"{SERVICE}{self.case.name.replace(' ', '-')}.{self.kind}.{self.shape}"

    @property
    def streams(self) -> bool:
        return self.kind[1] == "s"

    @property
    def sends(self) -> Sequence[bytes]:
        """What the client sends: one message where only one may be sent."""
        return self.case.sends if self.kind[0] == "s" else self.case.sends[:1]

    @property
    def may_be_forgotten(self) -> bool:
        """Is it a generator in a thread of the asynchronous server, and does it raise?"""
        return self.server == "aio" and self.shape == "sync" and self.streams and self.ends_badly

    @property
    def ends_badly(self) -> bool:
        return self.case.code not in {0, DEADLINE}

    def talk(self, client: Client) -> Seen:
        try:
            if self.case.talk is not None:
                return self.case.talk(client, self.method, self.kind, self.sends)
            if self.may_be_forgotten:
                return client.call_until_it_ends(self.method, self.kind, self.sends)
            return client.call(self.method, self.kind, self.sends, timeout=self.case.timeout)
        finally:
            if hang in self.case.steps:
                # When this is answered, the server knows of the client's end: it has come before.
                client.call(f"{SERVICE}Ping", "uu", identified=False)
            OVER[client.request_id].set()

    def __str__(self) -> str:
        return f"{self.server} {self.case.name} {self.kind} {self.shape}"


def rows_of(cases: Sequence[Case]) -> list[Row]:
    """Every case on every server that it is for, in every shape of a handler."""
    return [
        Row(_at(case, server, kind, shape), server, kind, shape)
        for case in cases
        for server in case.servers
        for kind in case.kinds
        for shape in SHAPES[server][kind]
    ]


def _at(case: Case, server: str, kind: str, shape: str) -> Case:
    many = "many" if kind[1] == "s" else "one"
    for place in (server, f"{server} {many}", f"{server} {shape}"):
        if place in case.on:
            case = replace(case, **case.on[place])
    return case
