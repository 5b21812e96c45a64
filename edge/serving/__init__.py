"""The running site as the local socket shows and steers it."""
