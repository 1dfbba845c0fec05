"""What stands for itself in configurations and results, whatever machines there are."""

NETWORK = "network"
"""The network that is explained, where a source is named."""
HELDOUT = "heldout"
"""The objective of a calibration that asks no network."""
