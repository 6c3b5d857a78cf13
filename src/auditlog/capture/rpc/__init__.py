"""gRPC, as far as both servers agree: an RPC in flight, and how its parts become a row."""
