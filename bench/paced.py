"""Bench equipment: many printers on paced wires, in one small process, so that the simulator is not what is measured.

Each printer is a pseudo-terminal behind an ideal wire of `baud` (8N1: ten bits a byte, both ways) with a firmware that
takes every command at once: a line's ``ok`` leaves when its last byte has arrived. A receive ring of 128 bytes is kept
account of: what the host has sent and the wire has not delivered is in the host's own buffer, as on a real port.
`latency_s` holds back what the firmware says, as a USB adapter does.

    python -m bench.paced --printers 16 --baud 250000 --lines 3000 --folder DIR

prints ``ready``; ``began`` when the first numbered line has come, and ``done`` when every printer has taken `--lines`
of them, so that the host's CPU can be read at these moments; on SIGTERM a JSON line per printer. What comes after
`--lines` lines is answered, and not counted.
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import json
import os
import pty
import re
import selectors
import signal
import sys
import time
import tty
from array import array
from dataclasses import dataclass, field
from pathlib import Path

BITS_PER_BYTE = 10
ABORT = b"M112"
M115 = (
    b"FIRMWARE_NAME:Marlin 2.1.2.1 (bench) PROTOCOL_VERSION:1.0 MACHINE_TYPE:Bench EXTRUDER_COUNT:1 UUID:bench\n"
    b"Cap:EMERGENCY_PARSER:1\nCap:AUTOREPORT_TEMP:1\nCap:THERMAL_PROTECTION:1\nok\n"
)
_NUMBER = re.compile(rb"N(-?\d+) ?")
_WORD = re.compile(rb"([XYZ])([-+.\d]+)")


NOT_THE_PROGRAM = 890_000_000
"""What our driver sends by itself, before a program and to stop, is numbered from here."""


@dataclass(slots=True)
class Printer:
    """One paced wire. Times are seconds of time.monotonic."""

    fd: int
    byte_s: float
    latency_s: float
    lines_max: int
    unread: bytearray = field(default_factory=bytearray)
    wire_free_s: float = 0.0  # when the last byte towards the firmware has arrived
    said_s: float = 0.0  # when the last byte towards the host has left
    move: bytes = b""
    last: int = 0
    gaps: int = 0
    arrived_s: array[float] = field(default_factory=lambda: array("d"))  # of each numbered line: its last byte
    wire_bytes: array[int] = field(default_factory=lambda: array("l"))  # of the numbered lines up to and with each
    aborts_s: list[float] = field(default_factory=list)

    @property
    def done(self) -> bool:
        """As many numbered lines were taken as are counted."""
        return len(self.arrived_s) >= self.lines_max

    def take(self, now_s: float) -> list[tuple[float, bytes]]:
        """Read what the host wrote; the answers, each with the time when its last byte reaches the host."""
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # nobody has the other side open
            return []
        self.unread += data
        *lines, rest = bytes(self.unread).split(b"\n")
        self.unread = bytearray(rest)
        answers = []
        for line in lines:
            self.wire_free_s = max(self.wire_free_s, now_s) + (len(line) + 1) * self.byte_s
            if line.endswith(ABORT):
                self.aborts_s.append(self.wire_free_s)
            answer = self._answer(line)
            if answer:
                self.said_s = max(self.said_s, self.wire_free_s) + len(answer) * self.byte_s
                answers.append((self.said_s + self.latency_s, answer))
        return answers

    def _answer(self, line: bytes) -> bytes:
        command = line.split(b"*")[0]
        if match := _NUMBER.match(command):
            number = int(match.group(1))
            command = command[match.end() :]
            if command.startswith(b"M110"):
                self.last = number
                return b"ok\n"
            if number > self.last + 1000:
                text = b"Error:Line Number is not Last Line Number+1, Last Line: %d\nResend: %d\nok\n"
                return text % (self.last, self.last + 1)
            self.gaps += number != self.last + 1
            self.last = number
            if command.startswith(b"G1"):
                self.move = command  # every move of the bench's programs names X and Y
            if number < NOT_THE_PROGRAM and not self.done:
                self.arrived_s.append(self.wire_free_s)
                self.wire_bytes.append((self.wire_bytes[-1] if self.wire_bytes else 0) + len(line) + 1)
            return b"ok\n"
        if command.startswith(b"M110"):
            self.last = 0
            return b"ok\n"
        if command.startswith(b"M115"):
            return M115
        if command.startswith(b"M105"):
            return b"ok T:20.00 /0.00 B:20.00 /0.00 @:0 B@:0\n"
        if command.startswith(b"M114"):
            at = {axis: float(number) for axis, number in _WORD.findall(self.move)}
            xyz = tuple(at.get(axis, 0.0) for axis in (b"X", b"Y", b"Z"))
            return b"X:%.2f Y:%.2f Z:%.2f E:0.00 Count X:0 Y:0 Z:0\nok\n" % xyz
        return b"ok\n" if command.strip() else b""

    def report(self, from_s: float, to_s: float) -> dict[str, object]:
        """The figures of this printer; rates are those between two moments, at which numbered lines were streaming."""
        first = bisect.bisect_left(self.arrived_s, from_s)
        last = bisect.bisect_right(self.arrived_s, to_s) - 1
        spent_s = self.arrived_s[last] - self.arrived_s[first] if last > first else 0.0
        sent_bytes = self.wire_bytes[last] - self.wire_bytes[first] if spent_s else 0
        return {
            "lines": len(self.arrived_s),
            "gaps": self.gaps,
            "lines_per_s": (last - first) / spent_s if spent_s else 0.0,
            "wire_share": sent_bytes * self.byte_s / spent_s if spent_s else 0.0,
            "line_bytes": sent_bytes / (last - first) if spent_s else 0.0,
            "spent_s": spent_s,
            "whole_s": self.arrived_s[-1] - self.arrived_s[0] if self.arrived_s else 0.0,
            "aborts_s": self.aborts_s,
        }


def reports(printers: list[Printer]) -> list[dict[str, object]]:
    """The figures of all, over the time in which every one of them was streaming."""
    streaming = [printer.arrived_s for printer in printers if printer.arrived_s]
    from_s = max((times_s[0] for times_s in streaming), default=0.0)
    to_s = min((times_s[-1] for times_s in streaming), default=0.0)
    return [printer.report(from_s, to_s) for printer in printers]


def serve(printers: list[Printer]) -> None:
    """Run until SIGTERM."""
    going = True

    def stop(*_: object) -> None:
        nonlocal going
        going = False

    signal.signal(signal.SIGTERM, stop)
    answers: list[tuple[float, int, int, bytes]] = []
    order = 0
    began = False
    streaming = set(range(len(printers)))
    with selectors.DefaultSelector() as selector:
        for index, printer in enumerate(printers):
            selector.register(printer.fd, selectors.EVENT_READ, index)
        while going:
            wait_s = max(0.0, answers[0][0] - time.monotonic()) if answers else 0.5
            ready = selector.select(wait_s)
            now_s = time.monotonic()
            for key, _ in ready:
                for at_s, answer in printers[key.data].take(now_s):
                    order += 1
                    heapq.heappush(answers, (at_s, order, key.data, answer))
                if not began and printers[key.data].arrived_s:
                    began = True
                    print("began", flush=True)
                if key.data in streaming and printers[key.data].done:
                    streaming.discard(key.data)
                    if not streaming:
                        print("done", flush=True)
            now_s = time.monotonic()
            while answers and answers[0][0] <= now_s:
                _, _, index, answer = heapq.heappop(answers)
                os.write(printers[index].fd, answer)


def main() -> int:
    """The command line of the module's docstring."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--printers", type=int, default=1)
    parser.add_argument("--baud", type=int, default=250_000)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    printers, kept = [], []
    for index in range(args.printers):
        master, slave = pty.openpty()
        tty.setraw(slave)
        kept.append(slave)  # so that reading goes on while no host has it open
        link = args.folder / f"printer-{index}"
        link.unlink(missing_ok=True)
        link.symlink_to(os.ttyname(slave))
        printers.append(Printer(master, BITS_PER_BYTE / args.baud, args.latency_ms / 1000, args.lines))
    print("ready", flush=True)
    serve(printers)
    for report in reports(printers):
        print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
