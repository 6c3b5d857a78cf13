"""A clock that jumps: `time.time` and `time.time_ns` are wrong by what a file says.

Python imports this module by itself when its folder is on PYTHONPATH. The monotonic clocks go on
as they were, as they do when somebody sets a machine's clock.
"""

import os
import time

_time_ns = time.time_ns
_file = os.environ.get("FAULT_CLOCK_SHIFT", "")


def _shift_ns() -> int:
    try:
        with open(_file) as file:  # before every import, and on a hot path
            return int(float(file.read()) * 1e9)
    except (OSError, ValueError):
        return 0


def shifted_ns() -> int:
    """Return the wrong time in nanoseconds."""
    return _time_ns() + _shift_ns()


if _file:
    time.time_ns = shifted_ns
    time.time = lambda: shifted_ns() / 1e9
