"""What a log tells of itself: rows about its life and its losses, and lines for the operator."""
