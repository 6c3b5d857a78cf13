"""Where quotas are defined: in code, in files, in the database; and which of them apply."""
