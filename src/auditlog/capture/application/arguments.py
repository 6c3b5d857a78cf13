"""`Question`: what an event takes from the call that it tells of, such as its target.

A question is a plain function, as in `target=lambda user_id: ("user", user_id)`. It gets those
arguments of the call that it names, in whatever way they were passed, and the call's result if it
names `result`. Whether it can be answered is found out when the function is decorated.
"""

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature, iscoroutinefunction, signature
from typing import Any, TypeAlias

Find: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any]], Any]

RESULT = "result"
_UNPASSABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD, Parameter.POSITIONAL_ONLY)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_MISSING = Parameter.empty


class Question:
    """A function that is asked about the calls of another.

    Raises:
        TypeError: it names what the calls do not have, or takes time to answer.
    """

    __slots__ = ("_ask", "_finds", "wants_result")

    def __init__(self, ask: Callable[..., Any], function: Callable[..., Any]) -> None:
        if iscoroutinefunction(ask):
            raise TypeError("what asks for a value of an event must be a plain function, not async")
        self._ask = ask
        self._finds: list[tuple[str, Find]] = []
        self.wants_result = False
        theirs = _signature(function)
        for parameter in _signature(ask).parameters.values():
            if parameter.kind in _UNPASSABLE:
                raise TypeError(f"{parameter} cannot be asked for: name arguments of the function")
            find = _finder(parameter.name, theirs)
            if find is not None:
                self._finds.append((parameter.name, find))
            elif parameter.name == RESULT:
                self.wants_result = True
            elif parameter.default is _MISSING:
                known = ", ".join((*theirs.parameters, RESULT))
                raise TypeError(f"{parameter.name!r} cannot be asked for; there are: {known}")

    def answer(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *result: Any) -> Any:
        """Ask about one call; raises whatever the function raises."""
        found = {}
        for name, find in self._finds:
            value = find(args, kwargs)
            if value is not _MISSING:
                found[name] = value
        if self.wants_result:
            (found[RESULT],) = result
        return self._ask(**found)


def _signature(function: Callable[..., Any]) -> Signature:
    try:
        return signature(function)
    except ValueError:
        raise TypeError(f"{function!r} does not tell its arguments: wrap it in a lambda") from None


def _finder(name: str, theirs: Signature) -> Find | None:
    """Return how to find the argument of that name in a call; None if calls have none."""
    parameter = theirs.parameters.get(name)
    if parameter is None:
        kinds = [known.kind for known in theirs.parameters.values()]
        if name == RESULT or Parameter.VAR_KEYWORD not in kinds:
            return None
        return lambda _, kwargs: kwargs.get(name, _MISSING)
    kind, default = parameter.kind, parameter.default
    if kind is Parameter.VAR_KEYWORD:
        named = {known.name for known in theirs.parameters.values() if known.kind in _BY_NAME}
        return lambda _, kwargs: {key: kwargs[key] for key in kwargs if key not in named}
    if kind is Parameter.KEYWORD_ONLY:
        return lambda _, kwargs: kwargs.get(name, default)
    position = list(theirs.parameters).index(name)
    if kind is Parameter.VAR_POSITIONAL:
        return lambda args, _: args[position:]
    by_name = kind in _BY_NAME
    return lambda args, kwargs: (
        args[position]
        if position < len(args)
        else kwargs.get(name, default)
        if by_name
        else default
    )
