"""The client process: real requests at a steady rate; one line of JSON for each that was sent.

Every request goes to the server with the trail and to the one without, so that both carry the same
load. What goes to the first is reported: `{"id", "scenario", "status"}`, or `{"failed"}` for a
request that could not be made.
"""

import argparse
import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterator
from typing import Any

from auditlog.demo.client import Client
from auditlog.demo.scenarios import SCENARIOS, Scenario

MAX_IN_FLIGHT = 200


class Traffic:
    """One run against two servers.

    Args:
        audited: Port of the server with the trail.
        bare: Port of the server without.
        run: Prefix of every request id.
    """

    def __init__(self, audited: int, bare: int, run: str) -> None:
        self._audited = audited
        self._ports = (audited, bare)
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
        except (OSError, EOFError, TimeoutError) as error:
            _report({"failed": f"{scenario.name}: {error!r}"})
        else:
            _report({"id": request_id, "scenario": scenario.name, "status": status})
        finally:
            self._free.release()

    async def _perform(self, scenario: Scenario, request_id: str) -> int | None:
        """Do it on both servers at once; the one that comes first changes each time."""
        ports = self._ports = self._ports[::-1]
        statuses = await asyncio.gather(
            *(scenario.perform(Client(port, request_id)) for port in ports)
        )
        return statuses[ports.index(self._audited)]


def _mixed(count: int) -> Iterator[Scenario]:
    """Choose the same mixture in every run."""
    chosen = random.Random(0)  # noqa: S311  # a mixture, no secret
    weights = [scenario.weight for scenario in SCENARIOS]
    return iter(chosen.choices(SCENARIOS, weights, k=count))


def _report(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201  # the lines are what this process is for


def main() -> None:
    """Run as a process: `python -m auditlog.demo.traffic`."""
    parser = argparse.ArgumentParser(prog="auditlog.demo.traffic", description=__doc__)
    parser.add_argument("--audited", type=int, required=True, metavar="PORT")
    parser.add_argument("--bare", type=int, required=True, metavar="PORT")
    parser.add_argument("--run", required=True, help="prefix of every request id")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    options = parser.parse_args()
    traffic = Traffic(options.audited, options.bare, options.run)
    asyncio.run(traffic.drive(options.seconds, options.rate))


if __name__ == "__main__":
    main()
