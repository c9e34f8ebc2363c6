"""HTTP on one connection: bytes in, requests out, and responses."""
