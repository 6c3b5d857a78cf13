"""Lines of a log that become rows: what the doors for `logging` and structlog have in common."""
