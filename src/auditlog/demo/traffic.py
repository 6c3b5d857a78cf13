"""The client process: real requests at a steady rate; one line of JSON for each that was sent.

Every request goes to the server with the trail and to the one without, so that both carry the same
load. What goes to the first is reported: `{"id", "scenario", "status", "due"}`, or `{"failed"}` for
a request that could not be made.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import grpc
import grpc.aio
import websockets

from auditlog.demo.client import Client
from auditlog.demo.rpc_client import RpcClient
from auditlog.demo.scenario import Clients, Scenario
from auditlog.demo.scenarios import SCENARIOS

MAX_IN_FLIGHT = 200
_FAILURES = (OSError, EOFError, TimeoutError, grpc.RpcError, websockets.WebSocketException)


class Target(NamedTuple):
    """A server, as its clients see it."""

    port: int
    channel: grpc.aio.Channel


class Traffic:
    """One run against two servers.

    Args:
        audited: The server with the trail.
        bare: The server without.
        run: Prefix of every request id.
    """

    def __init__(self, audited: Target, bare: Target, run: str) -> None:
        self._audited = audited
        self._targets = (audited, bare)
        self._ids = (f"{run}-{number}" for number in itertools.count(1))
        self._free = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def drive(self, seconds: float, rate: float) -> None:
        """Send at `rate` for `seconds`, and one of each kind to finish with."""
        async with asyncio.TaskGroup() as tasks:
            started = time.monotonic()
            for number, scenario in enumerate(_mixed(int(seconds * rate))):
                await asyncio.sleep(started + number / rate - time.monotonic())
                await self._free.acquire()
                tasks.create_task(self._send(scenario))
        for scenario in SCENARIOS:
            await self._free.acquire()
            await self._send(scenario)

    async def _send(self, scenario: Scenario) -> None:
        request_id = next(self._ids)
        try:
            status = await self._perform(scenario, request_id)
        except _FAILURES as error:
            _report({"failed": f"{scenario.name}: {error!r}"})
        else:
            name, due = scenario.name, [int(protocol) for protocol in scenario.due]
            _report({"id": request_id, "scenario": name, "status": status, "due": due})
        finally:
            self._free.release()

    async def _perform(self, scenario: Scenario, request_id: str) -> int | None:
        """Do it on both servers at once; the one that comes first changes each time."""
        targets = self._targets = self._targets[::-1]
        statuses = await asyncio.gather(
            *(scenario.perform(_clients(target, request_id)) for target in targets)
        )
        return statuses[targets.index(self._audited)]


def _clients(target: Target, request_id: str) -> Clients:
    return Clients(Client(target.port, request_id), RpcClient(target.channel, request_id))


def _mixed(count: int) -> Iterator[Scenario]:
    """Choose the same mixture in every run."""
    chosen = random.Random(0)  # noqa: S311  # a mixture, no secret
    weights = [scenario.weight for scenario in SCENARIOS]
    return iter(chosen.choices(SCENARIOS, weights, k=count))


def _report(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201  # the lines are what this process is for


async def _drive(options: argparse.Namespace) -> None:
    async with (
        grpc.aio.insecure_channel(f"127.0.0.1:{options.audited[1]}") as to_audited,
        grpc.aio.insecure_channel(f"127.0.0.1:{options.bare[1]}") as to_bare,
    ):
        audited, bare = Target(options.audited[0], to_audited), Target(options.bare[0], to_bare)
        await Traffic(audited, bare, options.run).drive(options.seconds, options.rate)


def main() -> None:
    """Run as a process: `python -m auditlog.demo.traffic`."""
    parser = argparse.ArgumentParser(prog="auditlog.demo.traffic", description=__doc__)
    ports: dict[str, Any] = {"type": int, "nargs": 2, "metavar": ("PORT", "GRPC_PORT")}
    parser.add_argument("--audited", required=True, **ports)
    parser.add_argument("--bare", required=True, **ports)
    parser.add_argument("--run", required=True, help="prefix of every request id")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    asyncio.run(_drive(parser.parse_args()))


if __name__ == "__main__":
    main()
