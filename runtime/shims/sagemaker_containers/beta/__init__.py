"""The names of users are all in `framework`."""
