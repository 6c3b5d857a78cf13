"""A server that is killed the moment a client has its answer: the row is in the spool."""

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from rpc_client import Client
from rpc_handlers import SHAPES

from auditlog.sink.spool.inspection import verify

SCRIPT = Path(__file__).with_name("rpc_durable_process.py")
KILLS = 15
CALLERS = 4
WAIT_S = 30.0


@pytest.mark.slow
def test_no_client_has_an_answer_without_a_row(rpc_server: str, tmp_path: Path) -> None:
    """The client's own list is compared with the bytes on the disk, for kill after kill."""
    answered_in_all = 0
    for kill in range(KILLS):
        folder = tmp_path / str(kill)
        with _running(rpc_server, folder) as (process, target):
            answered = _call_until_killed(rpc_server, process, target, answers=1 + kill)
        stored = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())

        assert len(answered) > kill
        assert [each for each in answered if f'"{each}"'.encode() not in stored] == []
        assert verify(str(folder)).is_well
        answered_in_all += len(answered)
    assert answered_in_all >= KILLS * (KILLS + 1) / 2


@contextmanager
def _running(server: str, folder: Path) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), server, str(folder)], stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()
            process.wait(WAIT_S)


def _call_until_killed(
    server: str, process: "subprocess.Popen[str]", target: str, answers: int
) -> list[str]:
    """Call from several threads; the one that gets so many answers kills the server at once."""
    answered: list[str] = []
    count = itertools.count(1)
    methods = [(kind, shape) for kind, shapes in SHAPES[server].items() for shape in shapes]

    def call(number: int) -> None:
        with grpc.insecure_channel(target, [("grpc.enable_retries", 0)]) as channel:
            for kind, shape in itertools.islice(itertools.cycle(methods), number, None):
                client = Client(channel)
                code = client.call(f"/rpc.Scene/{kind}.{shape}", kind).code
                if code != 0:
                    return
                if next(count) == answers:
                    with suppress(ProcessLookupError):
                        os.kill(process.pid, signal.SIGKILL)
                answered.append(client.request_id)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    return answered
