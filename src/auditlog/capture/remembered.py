"""Answers that are worked out once, in a table that cannot grow without end.

The keys come from clients, so neither their number nor their length may fill the memory: a full
table forgets everything, a long key is answered anew each time.
"""

from collections.abc import Callable
from typing import TypeVar

Key = TypeVar("Key", str, bytes)
Answer = TypeVar("Answer")

MAX_KEYS = 4096
MAX_KEY_LENGTH = 128


class Remembered(dict[Key, Answer]):
    """Key → answer, found at the first look. A known key costs a plain dictionary's look-up."""

    __slots__ = ("_find",)

    def __init__(self, find: Callable[[Key], Answer]) -> None:
        super().__init__()
        self._find: Callable[[Key], Answer] = find

    def __missing__(self, key: Key) -> Answer:
        answer = self._find(key)
        if len(key) <= MAX_KEY_LENGTH:
            if len(self) >= MAX_KEYS:
                self.clear()
            self[key] = answer
        return answer
