"""A file and flags → what is wanted of each table."""
