"""Stand-in until the real one lands."""
from typing import Any
class Spool:
    def __init__(self, *a: Any, **k: Any) -> None: ...
