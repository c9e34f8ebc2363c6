"""Training: `docker run IMAGE train`."""
