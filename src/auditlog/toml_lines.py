"""The lines of a TOML file that keys stand on, for messages: the parser of Python tells none."""

import re
from collections import Counter

_HEADER = re.compile(r"\s*(\[{1,2})\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(
    r"\s*((?:[\w-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[\w-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
_BETWEEN = re.compile(r"\s*\.\s*|[\"']")
_ARRAY = "[["


class Lines:
    """Where the keys of a document are; those of the n-th `[[table]]` at `table`, n from 0."""

    def __init__(self, text: str) -> None:
        self._numbers: dict[str, int] = {}
        arrays: Counter[str] = Counter()
        section = ""
        for number, line in enumerate(text.splitlines(), 1):
            if header := _HEADER.match(line):
                section = _plain(header[2])
                if header[1] == _ARRAY:
                    arrays[section] += 1
                    section = _path(section, str(arrays[section] - 1))
                self._numbers.setdefault(section, number)
            elif key := _KEY.match(line):
                self._numbers.setdefault(_path(section, _plain(key[1])), number)

    def of(self, *path: str) -> int:
        """Return the line of a key, or of the section that it is in."""
        while path:
            if number := self._numbers.get(_path(*path)):
                return number
            path = path[:-1]
        return 1


def _plain(key: str) -> str:
    return _BETWEEN.sub(lambda found: "." if "." in found[0] else "", key)


def _path(*parts: str) -> str:
    return ".".join(part for part in parts if part)
