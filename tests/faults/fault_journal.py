"""What a client knows, on disk: each request that it sent, and each answer that it read whole.

One line an event, written before the next step is taken, so that nothing the client has seen is
missing when the client itself is killed. The journal is what the trail is compared with.
"""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SENT, ANSWERED, FAILED = "sent", "answered", "failed"
REFUSED = 503


@dataclass(slots=True)
class Request:
    """One request as its client saw it."""

    identity: str
    sent_at: float
    """Seconds since 1970, as all instants here."""
    answered_at: float | None = None
    status: int | None = None
    """None: no whole answer was read."""
    failure: str = ""

    @property
    def acknowledged(self) -> bool:
        """Was it answered, and not refused for want of a trail?"""
        return self.status is not None and self.status != REFUSED

    @property
    def latency_s(self) -> float:
        """From the first byte sent to the last one read."""
        return 0.0 if self.answered_at is None else self.answered_at - self.sent_at


class Journal:
    """The writing side. Safe for threads: a line is one append."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def sent(self, identity: str) -> None:
        """Say, beforehand, that a request goes out."""
        self._write(SENT, identity, "")

    def answered(self, identity: str, status: int) -> None:
        """Say that its answer was read whole."""
        self._write(ANSWERED, identity, str(status))

    def failed(self, identity: str, reason: str) -> None:
        """Say that there will be no answer."""
        self._write(FAILED, identity, reason)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _write(self, event: str, identity: str, detail: str) -> None:
        os.write(self._file, f"{event}\t{identity}\t{time.time()!r}\t{detail}\n".encode())


def read_journal(path: str | Path) -> dict[str, Request]:
    """Return the requests of a journal by their identity; a torn last line is left out."""
    requests: dict[str, Request] = {}
    for event, identity, instant, detail in _lines(Path(path)):
        if event == SENT:
            requests[identity] = Request(identity, instant)
        elif event == ANSWERED:
            requests[identity].answered_at = instant
            requests[identity].status = int(detail)
        else:
            requests[identity].failure = detail
    return requests


def _lines(path: Path) -> Iterator[tuple[str, str, float, str]]:
    with suppress(FileNotFoundError):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                event, identity, instant, detail = line[:-1].split("\t", 3)
                yield event, identity, float(instant), detail
