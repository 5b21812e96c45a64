"""Figures, measured side by side: `make bench`."""
