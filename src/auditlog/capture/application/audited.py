"""`audited`: a decorator that makes an event of every call of a function, also of one that fails.

The function keeps its signature, its kind (sync or async) and its results; its exceptions pass
as the objects that they are. The row is written when the call has ended: of a process that is
killed meanwhile, none is.
"""

from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from types import CoroutineType
from typing import Any, TypeVar, cast

from auditlog.capture.application.arguments import Question
from auditlog.capture.application.call import Audit, AuditedCall, Plan, as_of_now
from auditlog.capture.application.events import ApplicationEvents
from auditlog.capture.context import text_of
from auditlog.records import LogLevel

_Function = TypeVar("_Function", bound=Callable[..., Any])


def audited(
    event_type: object,
    /,
    *,
    user_id: object = None,
    target: object = None,
    message: object = None,
    level: int = LogLevel.INFO,
    resource_owner: object = None,
    instance_id: object = None,
    audit: Audit = None,
    **metadata: Any,
) -> Callable[[_Function], _Function]:
    """Record an event for every call of the decorated function.

    `user_id`, `target`, `message`, `resource_owner` and `instance_id` are values, or functions
    that are asked for them: `target=lambda user_id: ("user", user_id)` gets the argument that it
    names, and the call's result under the name `result`. What else is known only inside the
    function, it says with `annotate_event`.

    Args:
        event_type: What is done, in the application's words: `"user.deleted"`.
        user_id: Who does it; what is bound, or the request's user, without it.
        target: What it is done to, as type and identifier.
        message: One sentence for people.
        level: A `LogLevel`, for calls that succeed; failed ones have their own.
        resource_owner: The organisation to whom the target belongs.
        instance_id: The tenant.
        audit: The log, or a function that returns it. Without it: that of the request being
            served, else the only one of the process.
        metadata: More, stored as JSON. Fields with a secret's name are redacted.

    Raises:
        TypeError: the function is a generator, or what asks about its calls cannot be answered,
            or is given where nobody asks it.
    """
    if audit is not None and not isinstance(audit, ApplicationEvents) and not callable(audit):
        raise TypeError("audit= takes an AuditLog, or a function that returns one")
    _refuse_unasked(target, metadata)
    given = {
        "user_id": user_id,
        "target": target,
        "message": message,
        "resource_owner": resource_owner,
        "instance_id": instance_id,
    }

    def decorate(function: _Function) -> _Function:
        _refuse_others(function)
        asked = {
            name: Question(value, function) for name, value in given.items() if callable(value)
        }
        plan = Plan(
            name=getattr(function, "__qualname__", type(function).__qualname__),
            event_type=text_of(event_type),
            level=level,
            audit=audit,
            values={
                name: as_of_now(name, value)
                for name, value in given.items()
                if value is not None and name not in asked
            },
            early=tuple((name, ask) for name, ask in asked.items() if not ask.wants_result),
            late=tuple((name, ask) for name, ask in asked.items() if ask.wants_result),
            metadata=metadata,
        )
        return cast("_Function", _wrapped(function, plan))

    return decorate


def _refuse_unasked(target: object, metadata: Mapping[str, Any]) -> None:
    """Refuse functions where nobody would ask them: they would be stored, as their repr."""
    if isinstance(target, tuple | list) and any(map(callable, target)):
        raise TypeError("target= is asked as a whole: target=lambda user_id: ('user', user_id)")
    for name, value in metadata.items():
        if callable(value):
            raise TypeError(
                f"{name}= is metadata, for which no function is asked: pass a value, or say it"
                f" within the function, annotate_event({name}=...)"
            )


def _refuse_others(function: Any) -> None:
    """Refuse what does not do its work when it is called, or is not called itself."""
    if isinstance(function, classmethod | staticmethod | property):
        raise TypeError(f"put @audited(...) below @{type(function).__name__}")
    if not callable(function) or isinstance(function, type):
        raise TypeError("@audited(...) takes a function or a method")
    if _is_a(isgeneratorfunction, function) or _is_a(isasyncgenfunction, function):
        raise TypeError(
            "@audited(...) takes no generators: a call of one does nothing yet, and its end may"
            " never come; audit.record(...) where the work is done"
        )


def _wrapped(function: Any, plan: Plan) -> Any:
    if _is_a(iscoroutinefunction, function):

        @wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with AuditedCall(plan, args, kwargs) as call:
                call.result = result = await function(*args, **kwargs)
            return result

        return call_async

    @wraps(function)
    def call_sync(*args: Any, **kwargs: Any) -> Any:
        with AuditedCall(plan, args, kwargs) as call:
            call.result = result = function(*args, **kwargs)
            # Other decorators make plain functions of async ones.
            if type(result) is CoroutineType:
                call.postponed = True
                result = _awaited(result, call)
        return result

    return call_sync


def _is_a(kind: Callable[[Any], bool], function: Any) -> bool:
    """Tell the kind of a function, or of an object that is called like one."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004  # not whether it is callable: which kind


async def _awaited(coroutine: Coroutine[Any, Any, Any], call: AuditedCall) -> Any:
    call.postponed = False
    with call:
        call.result = result = await coroutine
    return result
