"""Fixtures: both servers once for all tests of the table, audited and bare."""

import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

# Where the generated service is.
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from rpc_servers import SERVERS
from rpc_stage import Stage, Stages

# Of grpcio 1.85: an iterator over requests that no handler has begun to read.
UNREAD = "coroutine '_MessageReceiver._async_message_receiver' was never awaited"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", f"ignore:{UNREAD}:RuntimeWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    _collect()


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What grpcio has left is gone before tests begin that know nothing of it."""
    yield
    _collect()


@pytest.fixture(scope="module")
def stages() -> Iterator[dict[str, Stage]]:
    """Both servers, by name."""
    with ExitStack() as stack:
        yield Stages(stack)


@pytest.fixture(params=SERVERS)
def rpc_server(request: pytest.FixtureRequest) -> str:
    """The name of a server, one after the other."""
    name: str = request.param
    return name


def _collect() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", UNREAD, RuntimeWarning)
        gc.collect()
