"""Quotas: how much of something a subject may use in a period, counted across every process."""
