"""A ticket tells, across threads and loops, when all rows of a request are durable."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from auditlog.ticket import Ticket

LONG_S = 20.0


def ticket_of(rows: int) -> Ticket:
    ticket = Ticket()
    for _ in range(rows):
        ticket.expect()
    return ticket


async def test_no_rows_need_no_waiting() -> None:
    """A request that left no row is not held up."""
    assert Ticket().wait(0)
    assert await Ticket().awaited(0)


@pytest.mark.parametrize(
    ("verdicts", "expected"), [([True, True], True), ([True, False], False), ([False], False)]
)
async def test_all_rows_have_to_be_durable(verdicts: list[bool], expected: bool) -> None:
    """One that never will be is enough."""
    ticket = ticket_of(len(verdicts))
    waiting = asyncio.create_task(ticket.awaited(LONG_S))
    for verdict in verdicts:
        await asyncio.sleep(0)
        assert not waiting.done()
        ticket.settle(verdict)
    assert await waiting is expected
    assert ticket.wait(0) is expected


async def test_time_is_over() -> None:
    """What comes later is too late for whoever waited, and right for the next."""
    ticket = ticket_of(1)
    assert not await ticket.awaited(0.001)
    assert not ticket.wait(0.001)
    ticket.settle(durable=True)
    assert await ticket.awaited(0)


async def test_settled_by_another_thread() -> None:
    """As the writer of a background thread does."""
    ticket = ticket_of(1)
    with ThreadPoolExecutor(1) as pool:
        waiting = asyncio.create_task(ticket.awaited(LONG_S))
        await asyncio.sleep(0)
        pool.submit(ticket.settle, True).result()
        assert await waiting


def test_waited_for_in_a_thread() -> None:
    """As the handlers of a threaded server do."""
    ticket = ticket_of(2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ticket.wait, LONG_S)
        ticket.settle(durable=True)
        assert not waiting.done()
        ticket.settle(durable=True)
        assert waiting.result()


async def test_several_wait_for_one() -> None:
    """Each is told."""
    ticket = ticket_of(1)
    waiting = [asyncio.create_task(ticket.awaited(LONG_S)) for _ in range(3)]
    await asyncio.sleep(0)
    ticket.settle(durable=True)
    assert await asyncio.gather(*waiting) == [True] * 3


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """The client has left; the row is settled all the same."""
    ticket = ticket_of(1)
    waiting = asyncio.create_task(ticket.awaited(LONG_S))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    ticket.settle(durable=True)
    assert await ticket.awaited(0)


def test_a_loop_that_is_closed_is_not_told() -> None:
    """Its request has ended with it, and the writer must not fail by that."""
    ticket = ticket_of(1)

    async def leave() -> None:
        task = asyncio.ensure_future(ticket.awaited(LONG_S))
        await asyncio.sleep(0)
        task.cancel()

    thread = threading.Thread(target=asyncio.run, args=(leave(),))
    thread.start()
    thread.join()
    ticket.settle(durable=True)
    assert ticket.wait(0)
