"""gRPC: what the interceptors cost a call and a message, and what is left of a server's pace."""
