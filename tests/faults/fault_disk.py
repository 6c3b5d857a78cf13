"""A small disk for the spool: a tmpfs where mounting is permitted, else a folder like any other."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MOUNTED = "tmpfs"


@contextmanager
def small_disk(folder: Path, kilobytes: int = 2048) -> Iterator[str]:
    """Mount a small disk for the length of the context.

    Yields:
        What limits the spool: `MOUNTED`, or the setting that has to where that is not permitted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k,mode=0700", "tmpfs", str(folder)]
    is_mounted = _run("mount", *options)
    try:
        yield MOUNTED if is_mounted else "spool_max_bytes"
    finally:
        if is_mounted:
            _run("umount", "--lazy", str(folder))


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
