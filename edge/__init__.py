"""The edge runtime for micro-factories."""

DISTRIBUTION = "microfactory-edge"
"""The name under which it is installed."""
