"""What every streaming figure is measured with: the same program, paced printers, and counters of the kernel.

A host's CPU time is read when the printers say that the first line of the program has come, and when the last has.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

BAUD = 250_000
LINES = 6000
"""Long enough that what a host does at the beginning of a print does not count for much."""

WAIT_S = 120.0
"""Longest that anything in a measurement may take; nothing is measured by it."""


class MissingError(Exception):
    """A figure that could not be measured; the reason, for people."""


def program() -> list[str]:
    """Commands that take about 38.5 bytes each on the wire, the same ones every time."""
    chance = random.Random(1)
    moves = (
        f"G1 X{chance.uniform(100, 199):.3f} Y{chance.uniform(100, 199):.3f} E{chance.uniform(0, 0.09):.5f}"
        for _ in range(LINES - 3)
    )
    return ["G28", "G90", "M83", *moves]


def write_program(path: Path) -> Path:
    """The program as a file."""
    path.write_text("".join(f"{command}\n" for command in program()), encoding="ascii")
    return path


class Printers:
    """A process of bench.paced."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self.pid = process.pid
        self._folder = folder

    def port(self, index: int) -> Path:
        """Where a host finds this printer."""
        return self._folder / f"printer-{index}"

    def wait(self, word: str) -> None:
        """Until they say `word`: ``ready``, ``began`` or ``done``."""
        assert self._process.stdout is not None
        said = self._process.stdout.readline().strip()
        if said != word:
            raise MissingError(f"the paced printers said {said!r} instead of {word!r}")

    def reports(self) -> list[dict[str, Any]]:
        """End them; the figures of each."""
        self._process.terminate()
        said, _ = self._process.communicate(timeout=WAIT_S)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    def end(self) -> None:
        """At once, also in the middle of something."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(WAIT_S)


@contextmanager
def printers(folder: Path, count: int = 1, latency_ms: float = 0.0, lines: int = LINES) -> Iterator[Printers]:
    """So many printers, ready to be connected to."""
    command = [sys.executable, "-m", "bench.paced", "--printers", str(count), "--baud", str(BAUD), "--lines"]
    command += [str(lines), "--latency-ms", str(latency_ms), "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        made = Printers(process, folder)
        try:
            made.wait("ready")
            yield made
        finally:
            made.end()


@dataclass(frozen=True)
class Usage:
    """What a process has used so far."""

    cpu_s: float
    rss_mib: float
    peak_mib: float


def usage(pid: int) -> Usage:
    """Of one process: the clock of its CPU time (clock_getcpuclockid(3)), and proc_pid_status(5).

    The times in proc_pid_stat(5) are whole ticks of 10 ms, a few percent of what a bench of some seconds takes.
    """
    try:
        cpu_s = time.clock_gettime(_cpu_clock(pid))
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        rss_kib, peak_kib = (float(status[name].split()[0]) for name in ("VmRSS", "VmHWM"))
    except (OSError, KeyError) as error:
        raise MissingError(f"process {pid} has ended before it could be measured") from error
    return Usage(cpu_s, rss_kib / 1024, peak_kib / 1024)


def _cpu_clock(pid: int) -> int:
    """What clock_getcpuclockid(3) gives, which Python does not have: Linux, include/linux/posix-timers_types.h."""
    return ~pid << 3 | 2


@dataclass(frozen=True)
class Figures:
    """One host at one or more printers; rates, shares and the bytes of a line on the wire are the slowest printer's.

    `printers_cores` is what the equipment took: near 1, or near what the machine has to spare, it is the limit itself.
    """

    lines_per_s: float
    wire_share: float
    line_bytes: float
    cores: float
    printers_cores: float
    cpu_s_per_100k: float
    peak_mib: float


def median(found: Sequence[Figures]) -> Figures:
    """Of each figure by itself."""
    return Figures(*(statistics.median(values) for values in zip(*map(astuple, found), strict=True)))


def measured(pid: int, paced: Printers, wait_ended: Callable[[], None]) -> Figures:
    """Wait for a stream to begin and to end; what the host `pid` needed for it. Ends the printers.

    `wait_ended` waits until the host itself says that it has printed.
    """
    paced.wait("began")
    before, printers_before = usage(pid), usage(paced.pid)
    paced.wait("done")
    after, printers_after = usage(pid), usage(paced.pid)
    wait_ended()
    found = paced.reports()
    slowest = min(found, key=lambda report: report["wire_share"])
    if not slowest["spent_s"]:
        raise MissingError("the printers were never streaming all at once")
    cpu_s = after.cpu_s - before.cpu_s
    whole_s = max(report["whole_s"] for report in found)
    lines = sum(report["lines"] for report in found)
    return Figures(
        lines_per_s=slowest["lines_per_s"],
        wire_share=slowest["wire_share"],
        line_bytes=slowest["line_bytes"],
        cores=cpu_s / whole_s,
        printers_cores=(printers_after.cpu_s - printers_before.cpu_s) / whole_s,
        cpu_s_per_100k=cpu_s / lines * 100_000,
        peak_mib=after.peak_mib,
    )
