"""The application's own events: what it records itself, in a request or far from any."""
