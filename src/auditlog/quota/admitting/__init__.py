"""Whether a request may be carried out, and what is settled when it is over."""
