"""Data sets as tensors in [-1, 1]."""
