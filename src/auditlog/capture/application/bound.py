"""`bound`: who acts and for which tenant, for the jobs and scripts that serve no request.

What is bound lives in a `ContextVar` of its own: it is seen by what the block calls, by tasks that
are made in it and by `asyncio.to_thread`; a bare thread begins with nothing, as Python has it. It
goes into events and executions, never into the row of a request.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

from auditlog.capture.context import Annotations, current, text_of

Identity: TypeAlias = tuple[str | None, str | None, str | None]
"""User, organisation and tenant."""


class Binding(AbstractContextManager[None]):
    """What one `with bound(...)` says; may be entered again, and from several threads."""

    __slots__ = ("identity", "metadata")

    def __init__(self, identity: Identity, metadata: Mapping[str, Any]) -> None:
        self.identity = identity
        self.metadata = metadata

    def __enter__(self) -> None:
        layers.set((*_settled(layers.get()), Layer(self, current.get())))

    def __exit__(self, *_: object) -> None:
        # Not by token: a coroutine may be closed in another context than it began in, and
        # generators do not leave their blocks in the order in which they entered them.
        open_layers = layers.get()
        for index in range(len(open_layers) - 1, -1, -1):
            if open_layers[index].binding is self:
                open_layers[index].is_ended = True
                layers.set(open_layers[:index] + open_layers[index + 1 :])
                return


@dataclass(slots=True, eq=False)
class Layer:
    """A binding in effect, and the request in which it was made."""

    binding: Binding
    holder: Annotations | None
    is_ended: bool = False
    """Has its block been left? Tasks that were made in it keep it."""


layers: ContextVar[tuple[Layer, ...]] = ContextVar("auditlog.bound", default=())
"""What is bound here, the innermost last."""


def bound(
    *,
    user_id: object = None,
    resource_owner: object = None,
    instance_id: object = None,
    **metadata: Any,
) -> Binding:
    """Name who acts in a `with` block, for the events that are recorded in it.

    Blocks nest: the inner one adds, and wins where both say something. It is no decorator, for
    the block would end before the body of an `async def` begins.

    Args:
        user_id: Who does it: a person, a job. Like the others, anything with a fitting `str`.
        resource_owner: The organisation to whom the thing belongs.
        instance_id: The tenant.
        metadata: Added to the metadata of every event and every line of an execution.
    """
    identity = (
        None if user_id is None else text_of(user_id),
        None if resource_owner is None else text_of(resource_owner),
        None if instance_id is None else text_of(instance_id),
    )
    return Binding(identity, metadata)


def _settled(inherited: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Make one of neighbours whose blocks have ended elsewhere.

    Nobody leaves these here. A job that plans its next run within its own block inherits one more
    each time.
    """
    kept: list[Layer] = []
    for layer in inherited:
        outer = kept[-1] if kept else None
        if outer and outer.is_ended and layer.is_ended and outer.holder is layer.holder:
            kept[-1] = Layer(_merged(outer.binding, layer.binding), layer.holder, is_ended=True)
        else:
            kept.append(layer)
    return tuple(kept)


def _merged(outer: Binding, inner: Binding) -> Binding:
    user_id, resource_owner, instance_id = (
        beyond if said is None else said
        for beyond, said in zip(outer.identity, inner.identity, strict=True)
    )
    return Binding((user_id, resource_owner, instance_id), {**outer.metadata, **inner.metadata})
