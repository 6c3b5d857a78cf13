"""Names of test cases that are the same in every process."""

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def without_address(value: object) -> str:
    """What a value looks like, without where it is in memory."""
    return _ADDRESS.sub("", repr(value))
