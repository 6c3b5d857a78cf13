"""Spendings: who pays, what is decided, and how that is told."""
