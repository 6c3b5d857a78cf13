"""Batches as committed transactions, and what the errors of a database mean."""
