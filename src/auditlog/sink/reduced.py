"""Stand-in until the real one lands."""
def reduced(table: int, row: bytes, sqlstate: str) -> bytes:
    return row
