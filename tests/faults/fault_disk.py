"""A small disk for the spool: a tmpfs where mounting is permitted, else a folder like any other."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, kilobytes: int = 2048) -> Iterator[bool]:
    """Mount a small disk for the length of the context.

    Yields:
        Whether that was permitted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "tmpfs", str(folder)]
    is_mounted = _run("mount", *options)
    try:
        yield is_mounted
    finally:
        if is_mounted:
            _run("umount", "--lazy", str(folder))


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
