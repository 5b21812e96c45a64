"""The files that orders name: fetched, checked, kept within their room, and given up when nobody needs them."""
