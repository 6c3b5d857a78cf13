"""A plain table becomes a partitioned one, and back; a DEFAULT becomes a partition like others."""
