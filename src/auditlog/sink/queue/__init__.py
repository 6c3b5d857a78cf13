"""Rows in memory: the queue, its batches, and the counters that say where every record is."""
