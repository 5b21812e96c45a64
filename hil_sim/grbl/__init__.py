"""A small router with grblHAL, as seen from its serial port.

`firmware.Firmware` is the whole of it without I/O: bytes and time in, bytes out.
"""
