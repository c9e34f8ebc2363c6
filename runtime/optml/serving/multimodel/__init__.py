"""Many models behind one port, each in its own process."""
