"""What a client is told of quotas, over HTTP and gRPC."""
