"""HTTP and WebSocket: ASGI messages watched as they pass."""
