"""Contestants take turns, round after round, so that a busy minute hits them all alike."""

import asyncio
import importlib.util
import math
import statistics
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


async def interleave(
    title: str, contestants: Mapping[str, Callable[[], Awaitable[T]]], rounds: int
) -> dict[str, list[T]]:
    """Run every contestant once a round; each round begins with another one.

    Returns:
        What each contestant returned, in the order of the rounds.
    """
    names = list(contestants)
    results: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            _show(f"{title} {number + 1}/{rounds} {name}")
            results[name].append(await contestants[name]())
    _show("")
    return results


def added(with_it: Iterable[float], without: Iterable[float]) -> float:
    """Return the median of the differences, each taken within one round."""
    return statistics.median(a - b for a, b in zip(with_it, without, strict=True))


def ratio(figures: Iterable[float], of: Iterable[float]) -> float:
    """Return the median of the quotients, each taken within one round."""
    return statistics.median(a / b for a, b in zip(figures, of, strict=True))


def interval(values: Iterable[float]) -> tuple[float, float]:
    """Return where the median lies with 95 % certainty, whatever the distribution; by the ranks.

    Fewer than six values say nothing: from minus to plus infinity.
    """
    ordered = sorted(values)
    # The number of values below the median is binomial, about normal with deviation √n / 2.
    rank = int((len(ordered) - 1.96 * math.sqrt(len(ordered))) / 2)
    if len(ordered) < 6:
        return -math.inf, math.inf
    return ordered[rank], ordered[-1 - rank]


def judge(
    lies: tuple[float, float], *, at_most: float = math.inf, at_least: float = -math.inf
) -> bool | None:
    """Tell whether a figure that lies in there keeps the bounds; None if one is in there too."""
    low, high = lies
    if at_least <= low and high <= at_most:
        return True
    return False if low > at_most or high < at_least else None


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end."""
    with event_loop() as runner:
        return runner.run(main)


def event_loop() -> asyncio.Runner:
    """Make a runner with the loop that uvicorn would choose."""
    return asyncio.Runner(loop_factory=_loop_factory())


def loop_name() -> str:
    """Name that loop."""
    return "asyncio" if _loop_factory() is None else "uvloop"


def _show(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{progress}", end="", file=sys.stderr, flush=True)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if importlib.util.find_spec("uvloop") is None:
        return None
    import uvloop  # noqa: PLC0415  # not there on every platform

    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
