"""A simulated OctoPrint: the part of its API that a client needs to print, with faults on request.

Written from OctoPrint's documentation (https://docs.octoprint.org/en/1.11.8/api/) and from what OctoPrint 1.11.8 was
seen to answer; it shares no code with OctoPrint nor with any client.
"""
