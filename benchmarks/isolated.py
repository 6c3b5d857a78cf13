"""Contestants in processes of their own, as in life.

None finds the caches, the garbage or the specialised bytecode of another. Each process makes its
contestant once, on one event loop, and then runs a turn whenever it is asked. A contestant that
fails ends the benchmark; its traceback is on stderr.
"""

import multiprocessing
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import TypeAlias

from benchmarks.rounds import event_loop

Turn: TypeAlias = Callable[[], Awaitable[float]]
Factory: TypeAlias = Callable[[str], AbstractAsyncContextManager[Turn]]
"""Makes the contestant of that name; must be importable. What it checks at its end may raise."""


@contextmanager
def isolated(make: Factory, names: Iterable[str]) -> Iterator[dict[str, Turn]]:
    """Start a process for each name, and give the functions that ask them for a turn."""
    with ExitStack() as stack:
        pipes = {name: stack.enter_context(_process(make, name)) for name in names}
        for name, pipe in pipes.items():
            _receive(pipe, name)  # made, and warmed up
        yield {name: _turn(pipe, name) for name, pipe in pipes.items()}
        for name, pipe in pipes.items():
            _ask(pipe, name, another=False)


@contextmanager
def _process(make: Factory, name: str) -> Iterator[Connection]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make, name, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join()


def _turn(pipe: Connection, name: str) -> Turn:
    async def turn() -> float:
        return _ask(pipe, name, another=True)

    return turn


def _ask(pipe: Connection, name: str, *, another: bool) -> float:
    pipe.send(another)
    return _receive(pipe, name)


def _receive(pipe: Connection, name: str) -> float:
    try:
        return float(pipe.recv())
    except EOFError:
        raise RuntimeError(f"the process of {name!r} has failed; see above") from None


def _serve(make: Factory, name: str, pipe: Connection) -> None:
    with event_loop() as runner:
        contestant = make(name)
        turn = runner.run(contestant.__aenter__())
        pipe.send(runner.run(_once(turn)))
        try:
            while pipe.recv():
                pipe.send(runner.run(_once(turn)))
        except EOFError:  # the benchmark has failed elsewhere
            return
        runner.run(contestant.__aexit__(None, None, None))
    pipe.send(0.0)


async def _once(turn: Turn) -> float:
    return await turn()
