"""Faults of the spool's disk and files: full, flipped, cut, shared."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_scene import Fault, Scene

BLOCK_BYTES = 4096
HEADERS_BYTES = 2 * BLOCK_BYTES
"""Both copies of a segment's header: docs/spool-format.md."""


def outage(answers: int) -> Fault:
    """Return the fault that is nothing but a database which is away for so many answers."""

    def fault(scene: Scene) -> None:
        scene.proxy.refuse()
        scene.flow(answers)
        scene.proxy.admit()

    return fault


def disk_full(scene: Scene) -> None:
    """The database is away until long after the disk is full; then both are well again."""
    scene.proxy.refuse()
    scene.flow(700)
    ballast = scene.spool / "ballast"
    if ballast.exists():
        ballast.unlink()
    scene.flow(50)
    scene.proxy.admit()


def damaged(scene: Scene) -> None:
    """Bytes of the segments are flipped and missing when the next process comes to them."""
    scene.proxy.refuse()
    scene.flow(200)
    scene.service.kill()
    for segment in sorted(scene.spool.rglob("*.segment")):
        _flip(scene, segment, 5)
    scene.proxy.admit()
    scene.service.start()


def torn(scene: Scene) -> None:
    """The end of the last segment is missing, as after a power cut."""
    scene.proxy.refuse()
    scene.flow(200)
    scene.service.kill()
    segment = max(scene.spool.rglob("*.segment"))
    size = segment.stat().st_size
    os.truncate(segment, scene.random.randrange(max(HEADERS_BYTES, size - 5000), size))
    scene.proxy.admit()
    scene.service.start()


def header_damaged(scene: Scene) -> None:
    """One copy of a header cannot be read."""
    scene.proxy.refuse()
    scene.flow(50)
    scene.service.kill()
    for segment in scene.spool.rglob("*.segment"):
        at = scene.random.choice((0, BLOCK_BYTES)) + 40
        _overwrite(segment, at, bytes(64))
    scene.proxy.admit()
    scene.service.start()


def _flip(scene: Scene, segment: Path, times: int) -> None:
    size = segment.stat().st_size
    for _ in range(times if size > HEADERS_BYTES else 0):
        at = scene.random.randrange(HEADERS_BYTES, size)
        with segment.open("rb") as file:
            file.seek(at)
            (old,) = file.read(1)
        _overwrite(segment, at, bytes([old ^ scene.random.randrange(1, 256)]))


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@contextmanager
def small_disk(folder: Path, kilobytes: int = 2048) -> Iterator[str]:
    """Mount a small tmpfs for the length of the context, where that is permitted.

    Yields:
        What limits the disk: `tmpfs`, or nothing where there may be no mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    mounted = not subprocess.run(["mount", *options], capture_output=True, check=False).returncode  # noqa: S607  # the system's
    try:
        yield "tmpfs" if mounted else ""
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S607  # likewise
