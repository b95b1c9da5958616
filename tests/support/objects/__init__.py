"""Object storage: a real server on loopback, and a proxy before it."""
