"""All names that scripts use are in `framework`."""
