"""The stopwatch process: one plain read, timed on both servers in turn, over connections kept open.

A process of its own, because the client that makes the traffic has its hands full and would time
itself. Prints one line of JSON at the end: `{"reads": [[id, status]], "latency": {server: [ms]}}`,
where the reads are those of the server with the trail.
"""

import argparse
import http.client
import json
import time

TARGET = "/orders/1"
INTERVAL_S = 0.01
TIMEOUT_S = 20.0


class Stopwatch:
    """Times reads on one server."""

    def __init__(self, port: int) -> None:
        self.samples: list[float] = []
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)

    def read(self, request_id: str) -> int:
        """Read once, to the last byte, and return the status."""
        headers = {"user-agent": "auditlog-demo", "x-request-id": request_id}
        started = time.perf_counter()
        self._connection.request("GET", TARGET, headers=headers)
        answer = self._connection.getresponse()
        answer.read()
        self.samples.append((time.perf_counter() - started) * 1000)
        return answer.status

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def measure(audited: int, bare: int, run: str, seconds: float) -> dict[str, object]:
    """Time reads on two ports for some seconds; the one that comes first changes each time."""
    watches = {"audited": Stopwatch(audited), "bare": Stopwatch(bare)}
    order = list(watches)
    reads: list[tuple[str, int]] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        order.reverse()
        request_id = f"{run}-timed-{len(reads) + 1}"
        statuses = {name: watches[name].read(request_id) for name in order}
        reads.append((request_id, statuses["audited"]))
        time.sleep(INTERVAL_S)
    for watch in watches.values():
        watch.close()
    # The first read opens the connection.
    latency = {name: watch.samples[1:] for name, watch in watches.items()}
    return {"reads": reads, "latency": latency}


def main() -> None:
    """Run as a process: `python -m auditlog.demo.timing`."""
    parser = argparse.ArgumentParser(prog="auditlog.demo.timing", description=__doc__)
    parser.add_argument("--audited", type=int, required=True, metavar="PORT")
    parser.add_argument("--bare", type=int, required=True, metavar="PORT")
    parser.add_argument("--run", required=True, help="prefix of every request id")
    parser.add_argument("--seconds", type=float, required=True)
    options = parser.parse_args()
    result = measure(options.audited, options.bare, options.run, options.seconds)
    print(json.dumps(result))  # noqa: T201  # the line is what this process is for


if __name__ == "__main__":
    main()
