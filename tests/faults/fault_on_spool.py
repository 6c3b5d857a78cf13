"""Faults of the spool's disk and files: full, flipped, cut, shared."""

import dataclasses
import os
from pathlib import Path

from fault_client import Client
from fault_scene import Fault, Scene

BLOCK_BYTES = 4096
HEADERS_BYTES = 2 * BLOCK_BYTES
"""Both copies of a segment's header: docs/spool-format.md."""

SMALL_BYTES = 8 * 1024 * 1024
LEFT_BYTES = 100_000
SOME_BYTES = 20_000
TORN_S = 1.0
"""Within which what `torn` takes was written; `spool_fsync_interval_s` is a tenth of that."""


def outage(answers: int) -> Fault:
    """Return the fault that is nothing but a database which is away for so many answers."""

    def fault(scene: Scene) -> None:
        scene.proxy.refuse()
        scene.flow(answers)
        scene.proxy.admit()

    return fault


def disk_full(scene: Scene) -> None:
    """The disk is full while the database is away; then it is not, then the database is back."""
    scene.proxy.refuse()
    ballast = scene.spool / "ballast"
    free = os.statvfs(scene.spool)
    if free.f_bavail * free.f_frsize < SMALL_BYTES:
        ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - LEFT_BYTES))
    scene.flow(500)
    ballast.unlink(missing_ok=True)
    scene.flow(50)
    scene.proxy.admit()


def damaged(scene: Scene) -> None:
    """Bytes of the segments are flipped, and some are missing, when the next process comes."""
    scene.proxy.refuse()
    scene.flow(200)
    scene.service.kill()
    for segment in sorted(scene.spool.rglob("*.segment")):
        if segment.stat().st_size > HEADERS_BYTES + SOME_BYTES:
            _cut_out(scene, segment)
            _flip(scene, segment, 5)
    scene.proxy.admit()
    scene.service.start()


def damaged_alive(scene: Scene) -> None:
    """The same, under the process that writes them, before it reads them back."""
    scene.proxy.refuse()
    scene.flow(200)
    for segment in sorted(scene.spool.rglob("*.segment")):
        _flip(scene, segment, 5)
    scene.proxy.admit()


def segment_missing(scene: Scene) -> None:
    """Of several segments one in the middle is gone."""
    scene.proxy.refuse()
    scene.flow(400)
    scene.service.kill()
    segments = sorted(scene.spool.rglob("*.segment"))
    assert len(segments) > 2, segments
    segments[len(segments) // 2].unlink()
    scene.proxy.admit()
    scene.service.start()


def torn(scene: Scene) -> None:
    """The end of the last segment is missing, as after a power cut before it was forced out."""
    scene.volatile_s = TORN_S
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


def _cut_out(scene: Scene, segment: Path) -> None:
    """Take some bytes out of the middle; the rest moves up."""
    content = segment.read_bytes()
    at = scene.random.randrange(HEADERS_BYTES, len(content) - SOME_BYTES)
    segment.write_bytes(content[:at] + content[at + scene.random.randrange(1, 2000) :])


def _flip(scene: Scene, segment: Path, times: int) -> None:
    size = segment.stat().st_size
    for _ in range(times):
        at = scene.random.randrange(HEADERS_BYTES, size)
        with segment.open("rb") as file:
            file.seek(at)
            (old,) = file.read(1)
        _overwrite(segment, at, bytes([old ^ scene.random.randrange(1, 256)]))


def _overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def shared(scene: Scene) -> None:
    """Two services on one spool, each killed while the other ships what it left."""
    journal = scene.folder / "journal-2"
    other = dataclasses.replace(scene.service, port=0, kills=[])
    with other, Client(other.port, journal, f"s{scene.seed}0", seed=scene.seed) as client:
        for service in (scene.service, other):
            scene.proxy.refuse()
            scene.flow(30)
            client.flow(30)
            service.kill()
            scene.proxy.admit()
            service.start()
        client.flow(30)
        client.stop()
    scene.service.kills += other.kills
