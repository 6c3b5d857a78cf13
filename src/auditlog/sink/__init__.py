"""LogRecord → committed rows: encode, buffer, copy, and the writer that drives them."""
