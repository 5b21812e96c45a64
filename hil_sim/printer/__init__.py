"""A printer with Marlin 2.1.2.1, as seen from its serial port.

`firmware.Firmware` is the whole of it without I/O: bytes and time in, bytes out. `device` ties it to wire and clock.
"""
