"""A run directory: written, read and rebuilt."""
