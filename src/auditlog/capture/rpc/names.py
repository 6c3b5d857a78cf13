"""A full method → its parts. Clients name methods, so the answers are remembered within bounds."""

import re
from typing import Final, NamedTuple

from auditlog.capture.remembered import Remembered

_PLAIN = re.compile(r"/[\w.]+/\w+", re.ASCII)


class Names(NamedTuple):
    """What `/package.Service/Method` consists of; of anything else, the nearest to it."""

    service: str
    method: str
    plain: bool
    """Is it made of identifiers alone, as every method that exists is?"""


def names_of(full_method: str) -> Names:
    """Take a full method apart at its last slash."""
    service, _, method = full_method.rpartition("/")
    plain = _PLAIN.fullmatch(full_method) is not None
    return Names(service.removeprefix("/"), method, plain)


NAMES: Final = Remembered(names_of)
