"""HTTP on one connection: bytes in, requests out; responses and the access log."""
