"""Stand-in until the real one lands."""
from typing import Any
DEAD_LETTERS_FOLDER = "dead-letters"
DeadLetter = Any
class DeadLetterFile:
    def __init__(self, directory: Any) -> None: ...
    def append(self, letter: Any) -> None: raise OSError("no file")
def letter_of(*a: Any) -> Any: return a
