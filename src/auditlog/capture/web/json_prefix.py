"""The beginning of a JSON document → a document that says the same as far as it goes.

Takes the first bytes of a document that was cut off, gives them up to the last comma or bracket
with every open bracket closed. What follows the last comma is given up: a number or a name that
is cut in the middle is another one. The result is JSON if the document was; nobody checks that
here.
"""

import re

# Strings whole, so that what looks like structure inside them is none. The last one may be cut.
_STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
_CLOSING = {b"{": b"}", b"[": b"]"}
_CLOSED = frozenset(_CLOSING.values())


def repair(prefix: bytes) -> bytes | None:
    """Return a document that is closed; None if nothing in the prefix is certain."""
    closing: list[bytes] = []
    end = 0
    for found in _STRUCTURE.finditer(prefix):
        mark = found[0]
        if mark == b",":
            end = found.start()
            continue
        if mark in _CLOSING:
            closing.append(_CLOSING[mark])
        elif mark not in _CLOSED:
            continue
        elif not closing or closing.pop() != mark:
            return None
        end = found.end()
        if not closing:
            break
    return prefix[:end] + b"".join(reversed(closing)) if end else None
