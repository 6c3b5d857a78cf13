"""The catalog of the database → the state of one table; nothing is locked, nothing is changed."""
