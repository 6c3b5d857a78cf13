"""Records as the bytes of binary COPY tuples, and what can be read out of such bytes."""
