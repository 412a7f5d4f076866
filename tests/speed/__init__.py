"""Ours and the best plain way, side by side in one run. `make speed` runs it."""
