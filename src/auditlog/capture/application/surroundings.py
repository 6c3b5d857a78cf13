"""What is known where an event happens: who acts, for which tenant, within which request.

Asks what is bound and the request being served; the innermost wins. A `bound` around a whole
server therefore fills in what a request does not say, and never replaces the request's user.
Bare threads know of neither.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from auditlog.capture.application.bound import Identity, Layer, layers
from auditlog.capture.context import Annotations, current


class Surroundings(NamedTuple):
    """The facts; None and empty where nothing is known."""

    user_id: str | None = None
    resource_owner: str | None = None
    instance_id: str | None = None
    parent_id: str | None = None
    """`log_id` of the row of the request being served."""
    trace_id: str | None = None
    span_id: str | None = None
    metadata: Mapping[str, Any] = {}
    """What is bound beside the identity."""

    def links(self) -> dict[str, Any]:
        """Return the metadata that tie a row to its request and to its trace."""
        links: dict[str, Any] = {}
        if self.parent_id is not None:
            links["audit.parent_id"] = self.parent_id
        if self.trace_id is not None:
            links["trace_id"] = self.trace_id
            links["span_id"] = self.span_id
        return links


def surroundings() -> Surroundings:
    """Gather the facts of this context.

    Within a request this fixes the identifier of its row. What the application's own callables
    raise (`user_id=` of a middleware) is reported, and does not come out of here.
    """
    holder, bindings = current.get(), layers.get()
    if holder is None:
        return _bound_only(bindings) if bindings else _NOTHING
    if bindings:
        identity, metadata = _identity(holder, bindings), bound_metadata()
    else:
        identity, metadata = holder.identity(), _NOTHING.metadata
    return Surroundings(*identity, holder.row_id(), *holder.trace(), metadata)


def bound_metadata() -> Mapping[str, Any]:
    """Return what is bound here beside the identity; of the same name the innermost."""
    bindings = layers.get()
    if not bindings:
        return _NOTHING.metadata
    if len(bindings) == 1:
        return bindings[0].binding.metadata
    merged: dict[str, Any] = {}
    for layer in bindings:
        merged.update(layer.binding.metadata)
    return merged


_NOTHING = Surroundings()


def _bound_only(bindings: tuple[Layer, ...]) -> Surroundings:
    return Surroundings(*_identity(None, bindings), metadata=bound_metadata())


def _identity(holder: Annotations | None, bindings: tuple[Layer, ...]) -> Identity:
    """Return user, organisation and tenant, each from the innermost that names it."""
    named = [layer.binding.identity for layer in reversed(bindings)]
    if holder is not None:
        # What was bound before the request began is further out than the request.
        within = sum(layer.holder is holder for layer in bindings)
        named.insert(within, holder.identity())
    if len(named) == 1:
        return named[0]
    user_id, resource_owner, instance_id = (
        next((name for name in names if name is not None), None)
        for names in zip(*named, strict=True)
    )
    return user_id, resource_owner, instance_id
