"""Counters in PostgreSQL: units taken in advance, and one statement for what many ask at once."""

from auditlog.quota.engine.engine import Engine

__all__ = ["Engine"]
