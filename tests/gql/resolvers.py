"""What the schemas of both libraries resolve to: the same answers, errors and annotations."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from graphql import GraphQLError

from auditlog import annotate

gates: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""What resolvers wait for, by the name that a client gives them."""
reached: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""Set by resolvers that wait."""


def hello() -> str:
    return "world"


def echo(text: str | None) -> str | None:
    return text


async def who(name: str) -> str:
    """Says who it is, in a task and a thread of its own, and lets others run in between."""
    annotate(user_id=name)
    await asyncio.sleep(0)
    await asyncio.to_thread(annotate, aggregate=("person", name), seen=name)
    await asyncio.create_task(_say(name))
    return name


async def _say(name: str) -> None:
    annotate(event_type=f"{name}.seen")


def fail() -> str:
    raise ValueError("the password is hunter2")


def refuse() -> str:
    raise PermissionError("not yours")


def read_file() -> str:
    raise PermissionError(13, "Permission denied")


def coded(code: str) -> str:
    raise GraphQLError("told not to", extensions={"code": code})


def items(count: int) -> list[int]:
    return list(range(count))


def item(number: int) -> int:
    if number % 2:
        raise LookupError(number)
    return number


async def wait(name: str) -> str:
    reached[name].set()
    await gates[name].wait()
    return name


async def upload_size(file: Any) -> int:
    try:
        return len(await file.read())
    finally:
        await file.close()


async def count(to: int) -> AsyncIterator[int]:
    annotate(event_type="counted", to=to)
    for number in range(to):
        yield number


async def forever() -> AsyncIterator[int]:
    yield 0
    await asyncio.Event().wait()


async def break_off() -> AsyncIterator[int]:
    yield 0
    raise RuntimeError("the source is gone")
