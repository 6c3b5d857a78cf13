"""What a quota counts of a request, and whose usage it is. Pure."""
