"""A client at a fixed rate that keeps the time of every answer: `load.py`, with a memory.

    python -m benchmarks.durability_load PORT CONNECTIONS SECONDS RATE

Prints an empty line when it begins, and at the end one JSON list: for each request when it was due,
by the monotonic clock that all processes of a machine share, and how long it took from then, in
seconds.
"""

import gc
import json
import sys
import time

from benchmarks.load import Connection, drive


class Timed(Connection):
    """A kept connection that notes when each request was due, and how long it took."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.answers: list[tuple[float, float]] = []

    def receive(self) -> bool:
        """Read what is there; whether that was the end of the answer."""
        is_over = super().receive()
        if is_over:
            self.answers.append((self.due, time.perf_counter() - self.due))
        return is_over


def main() -> None:
    """Do what the command line says."""
    port, count, seconds, rate = sys.argv[1:]
    connections = [Timed(int(port)) for _ in range(int(count))]
    gc.disable()
    print(flush=True)
    drive([*connections], float(seconds), float(rate))
    print(json.dumps(sorted(answer for each in connections for answer in each.answers)))


if __name__ == "__main__":
    main()
