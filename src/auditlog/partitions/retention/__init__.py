"""What takes rows away, and what keeps it from that: each deed is re-checked under its lock."""
