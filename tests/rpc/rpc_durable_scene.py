"""One strict server of a test's own, with a handler in every kind and shape."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rpc_client import Client
from rpc_durable_trail import DurableTrail, settings_of
from rpc_handlers import SHAPES
from rpc_scene import Scene, every_shape, scene
from rpc_steps import Step

KINDS_AND_SHAPES = [
    (server, kind, shape)
    for server, kinds in SHAPES.items()
    for kind, shapes in kinds.items()
    for shape in shapes
]


@dataclass(frozen=True)
class StrictScene:
    """A server, and a client of it."""

    ours: Scene
    trail: DurableTrail

    def client(self) -> Client:
        return Client(self.ours.channel)


@contextmanager
def strict_scene(
    server: str, *steps: Step, durability: str = "commit", settings: Any = None, **options: Any
) -> Iterator[StrictScene]:
    """Serve `/rpc.Scene/KIND.SHAPE`, each of which takes the steps."""
    trail = DurableTrail(settings or settings_of(durability))
    methods = {method: each for method, (_, each) in every_shape(server, *steps).items()}
    with scene(server, methods, audit=trail, **options) as ours:
        yield StrictScene(ours, trail)


def method_of(kind: str, shape: str) -> str:
    return f"/rpc.Scene/{kind}.{shape}"
