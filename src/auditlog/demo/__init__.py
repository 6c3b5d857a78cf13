"""The demo: a real server, real traffic from another process, and the proof that sent = stored."""
