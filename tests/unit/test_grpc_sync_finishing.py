"""How rows are finished: in batches, at once when nothing else is under way, and never too late."""

import atexit
import gc
import threading

from auditlog.capture.rpc.finishing import BATCH, Finishing

WAIT_S = 10.0
LONG_S = 3600.0


class Rpc:
    """Tells when it was finished, and how."""

    def __init__(self, finishing: Finishing, finished: list["Rpc"]) -> None:
        self._finishing = finishing
        self._finished = finished
        self.over = threading.Event()
        self.waited_since_ns = 0
        finishing.begin()

    def finish(self, _: None, /) -> None:
        self._finished.append(self)
        self.over.set()

    def give_up_waiting(self, since_ns: int, /) -> None:
        self.waited_since_ns = since_ns
        self._finishing.end(self)


def rpcs(finishing: Finishing, count: int) -> tuple[list[Rpc], list[Rpc]]:
    finished: list[Rpc] = []
    return [Rpc(finishing, finished) for _ in range(count)], finished


def test_last_one_under_way_finishes_all_at_once() -> None:
    """In the order in which they ended."""
    finishing = Finishing(look_every_s=LONG_S)
    each, finished = rpcs(finishing, 3)
    finishing.end(each[1])
    finishing.end(each[0])
    assert finished == []
    finishing.end(each[2])
    assert finished == [each[1], each[0], each[2]]


def test_batch_does_not_wait_for_what_is_under_way() -> None:
    """A stream that never ends holds up nobody's row."""
    finishing = Finishing(look_every_s=LONG_S)
    each, finished = rpcs(finishing, BATCH + 1)
    for rpc in each[:-1]:
        finishing.end(rpc)
    assert finished == each[:-1]


def test_less_than_a_batch_is_finished_by_the_thread() -> None:
    """While another one is under way."""
    finishing = Finishing(look_every_s=0.01)
    each, _ = rpcs(finishing, 2)
    finishing.end(each[0])
    assert each[0].over.wait(WAIT_S)


def test_what_waits_too_long_is_given_up() -> None:
    """And is told since when it waited."""
    finishing = Finishing(patience_s=0, look_every_s=0.01)
    (rpc,), finished = rpcs(finishing, 1)
    finishing.wait(rpc)
    assert rpc.over.wait(WAIT_S)
    assert rpc.waited_since_ns
    assert finished == [rpc]


def test_what_ends_in_time_is_not_given_up() -> None:
    """It is forgotten then."""
    finishing = Finishing(patience_s=LONG_S, look_every_s=LONG_S)
    (rpc,), finished = rpcs(finishing, 1)
    finishing.wait(rpc)
    finishing.end(rpc)
    finishing.finish_all()
    assert (finished, rpc.waited_since_ns) == ([rpc], 0)


def test_exit_finishes_everything() -> None:
    """Also what has ended at one end only."""
    finishing = Finishing(patience_s=LONG_S, look_every_s=LONG_S)
    each, finished = rpcs(finishing, 3)
    finishing.wait(each[0])
    finishing.end(each[1])
    finishing.finish_all()
    assert set(finished) == set(each[:2])


def test_thread_lives_only_while_something_waits() -> None:
    """And there is a new one when something waits again."""
    finishing = Finishing(look_every_s=0.01)
    others = set(threading.enumerate())
    for _ in range(3):
        each, _ = rpcs(finishing, 2)
        finishing.end(each[0])
        (thread,) = set(threading.enumerate()) - others
        assert each[0].over.wait(WAIT_S)
        finishing.end(each[1])
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_forked_child_leaves_its_parents_rows_alone() -> None:
    """They would be there twice."""
    finishing = Finishing(patience_s=LONG_S, look_every_s=LONG_S)
    each, finished = rpcs(finishing, 2)
    finishing.wait(each[0])
    finishing.end(each[1])
    finishing.forget()
    finishing.finish_all()
    assert finished == []


def test_many_threads_lose_none() -> None:
    """Each is finished exactly once."""
    finishing = Finishing(look_every_s=0.001)
    finished: list[Rpc] = []

    def work() -> None:
        for _ in range(500):
            rpc = Rpc(finishing, finished)
            finishing.wait(rpc)
            finishing.end(rpc)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    finishing.finish_all()
    gc.collect()
    assert len(finished) == len({id(rpc) for rpc in finished}) == 4000


def test_rpc_that_ends_while_the_thread_is_begun_does_not_hang() -> None:
    """As when the collector finds its generator there: its thread is the same."""
    finishing = Finishing(patience_s=LONG_S, look_every_s=LONG_S)
    each, finished = rpcs(finishing, 2)

    class Registered:
        """What is compared while the thread is begun."""

        __hash__ = None  # type: ignore[assignment]

        def __call__(self) -> None:
            """Do nothing at the exit."""

        def __eq__(self, _: object) -> bool:
            finishing.wait(each[1])
            return False

    registered = Registered()
    atexit.register(registered)
    thread = threading.Thread(target=finishing.wait, args=[each[0]], daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    atexit.unregister(registered)
    finishing.finish_all()
    assert set(finished) == set(each)
