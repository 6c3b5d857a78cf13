"""What operators do with quotas, blocking: lay them down, look at usage, clean up."""
