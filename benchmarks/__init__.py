"""Measurements against the peers; each script says what it measures and prints a table."""
