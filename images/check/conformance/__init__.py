"""Checks any container image against the /opt/ml contract of training and serving."""
