"""Streaming figures: how near to the wire's limit, for how much CPU and memory, and how soon an abort is out.

Every figure is measured in this run, one after the other, against printers of bench.paced.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import others, ours
from bench.equipment import (
    BAUD,
    LINES,
    WAIT_S,
    Figures,
    MissingError,
    Printers,
    measured,
    median,
    printers,
    program,
    usage,
    write_program,
)
from drivers.analysis import analyse, command_on

ROUNDS = 3
"""Hosts that are held against each other take turns, so that whatever else the machine does falls on all of them."""

COUNTS = (1, 4, 16, 32, 64)
ABORT_PRINTERS = 16
ABORT_SPARE = 8
"""So many more, that those which connect anew after an abort need not be waited for."""

ABORT_S = 30.0
NO_END = 10**9
"""More lines than are ever sent: streams that are not measured by their end."""

BRACKET = Path("tests/programs/bracket.gcode")

OPEN, ONE, PRINTCORE, OCTOPRINT = "ours, window open", "ours, one in flight", "printcore", "OctoPrint"
LATE = ", 1 ms"
OPEN_1MS, ONE_1MS = OPEN + LATE, ONE + LATE
IDLE_MIB, ABORT_MS, ANALYSIS = "RSS, idle", "abort p99", "analysis"


class Bench:
    """What was measured, what is missing and why, and the lines that tell it."""

    def __init__(self) -> None:
        self.figures: dict[str, Figures] = {}
        self._measured: dict[str, list[Figures]] = {}
        self.numbers: dict[str, float] = {}
        self.missing: dict[str, str] = {}

    def run(self) -> list[str]:
        """Measure everything; the tables, line by line."""
        for _ in range(ROUNDS):
            self._measure(OPEN, lambda folder: _ours(folder))
            self._measure(ONE, lambda folder: _ours(folder, window="one"))
            self._measure(PRINTCORE, lambda folder: _theirs(folder, others.printcore))
            self._measure(OCTOPRINT, lambda folder: _theirs(folder, others.octoprint))
        self._measure(OPEN_1MS, lambda folder: _ours(folder, latency_ms=1.0))
        self._measure(ONE_1MS, lambda folder: _ours(folder, latency_ms=1.0, window="one"))
        self._measure(PRINTCORE + LATE, lambda folder: _theirs(folder, others.printcore, latency_ms=1.0))
        self._measure(OCTOPRINT + LATE, lambda folder: _theirs(folder, others.octoprint, latency_ms=1.0))
        lines = [*self._hosts(), ""]
        for count in COUNTS:
            self._measure(_many(count), lambda folder, count=count: _ours(folder, count, idle_mib=self.numbers))
        lines += [*self._counts(), ""]
        for measure in (self._aborts, self._analysis):
            try:
                lines += [measure()]
            except MissingError as error:
                self.missing[measure.__name__.strip("_")] = str(error)
        lines += ["", *self._acceptance()]
        return [*lines, *(f"MISSING {name}: {reason}" for name, reason in self.missing.items())]

    def _measure(self, name: str, measure: Callable[[Path], Figures]) -> None:
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
            try:
                self._measured.setdefault(name, []).append(measure(Path(folder)))
                self.figures[name] = median(self._measured[name])
            except (MissingError, AssertionError, subprocess.TimeoutExpired) as error:
                self.missing[name] = str(error)

    # Tables

    def _hosts(self) -> list[str]:
        versions = {
            PRINTCORE: f"Printrun {others.version('printrun', 'printrun')} printcore",
            OCTOPRINT: f"OctoPrint {others.version('octoprint', 'OctoPrint')}",
        }
        wire_bytes = statistics.mean(len(f"N{number} {text}*99\n") for number, text in enumerate(program(), 1))
        lines = [
            f"one printer, {BAUD} baud, {LINES} lines of {wire_bytes:.1f} bytes as written; '1 ms': adapter latency",
            f"medians of {ROUNDS} runs in turn; once with latency",
            "",
            f"  {'HOST':<33}{'LINES/s':>8}{'BYTES':>7}{'% WIRE':>8}"
            f"{'x PRINTCORE':>13}{'x OCTOPRINT':>13}{'CPU':>7}{'MiB':>6}",
        ]
        hosts = (OPEN, ONE, PRINTCORE, OCTOPRINT)
        for name, late in [(name, late) for late in ("", LATE) for name in hosts]:
            told = versions.get(name, name) + late
            if (found := self.figures.get(name + late)) is None:
                lines.append(f"  {told:<33}{'missing':>8}")
                continue
            # Against the same wire only.
            ratios = [self._ratio(name + late, other + late) for other in (PRINTCORE, OCTOPRINT)]
            texts = "".join(f"{'' if ratio is None else f'{ratio:.2f}':>13}" for ratio in ratios)
            lines.append(
                f"  {told:<33}{found.lines_per_s:>8.0f}{found.line_bytes:>7.1f}"
                f"{found.wire_share:>8.1%}{texts}{found.cpu_s_per_100k:>7.1f}{found.peak_mib:>6.0f}"
            )
        return [
            *lines,
            "  BYTES: of a line on the wire; CPU: seconds of the host's process for 100,000 lines; MiB: at most",
        ]

    def _counts(self) -> list[str]:
        lines = [
            "ours, window open, one daemon",
            "",
            f"  {'PRINTERS':>8}{'SLOWEST, % WIRE':>17}{'CPU':>7}{'CORES':>7}{'MiB':>6}{'MiB, IDLE':>11}"
            f"{'CORES, EQUIPMENT':>19}",
        ]
        for count in COUNTS:
            if (found := self.figures.get(_many(count))) is None:
                lines.append(f"  {count:>8}{'missing':>17}")
                continue
            lines.append(
                f"  {count:>8}{found.wire_share:>17.1%}{found.cpu_s_per_100k:>7.1f}{found.cores:>7.2f}"
                f"{found.peak_mib:>6.0f}{self.numbers[f'{IDLE_MIB} {count}']:>11.0f}"
                f"{found.printers_cores:>19.2f}"
            )
        return lines

    def _aborts(self) -> str:
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
            latencies_ms = _abort_latencies_ms(Path(name))
        self.numbers[ABORT_MS] = p99_ms = _percentile(latencies_ms, 0.99)
        return (
            f"abort while {ABORT_PRINTERS} printers or more stream, until the printer has it: "
            f"p50 {_percentile(latencies_ms, 0.5):.1f} ms, p99 {p99_ms:.1f} ms ({len(latencies_ms)} aborts)"
        )

    def _analysis(self) -> str:
        with BRACKET.open(encoding="utf-8") as file:
            texts = file.readlines()

        def analysed() -> None:
            analyse((number, command) for number, text in enumerate(texts, 1) if (command := command_on(text)))

        median_s = statistics.median(_seconds(analysed) for _ in range(ROUNDS))
        self.numbers[ANALYSIS] = len(texts) / median_s
        return f"analysis of {BRACKET.name}, {len(texts)} lines: {len(texts) / median_s:,.0f} lines/s"

    def _ratio(self, name: str, other: str) -> float | None:
        ours_, theirs = self.figures.get(name), self.figures.get(other)
        return ours_.lines_per_s / theirs.lines_per_s if ours_ and theirs else None

    def _acceptance(self) -> list[str]:
        lines = ["what is asked of it, and what was measured", ""]
        for what, wanted, least, figure in self._asked():
            if figure is None:
                lines.append(f"  {what:<48}{wanted:>12}{'missing':>11}")
                continue
            reached = figure >= least if wanted.startswith(">=") else figure <= least
            unit = wanted.lstrip("<>= 0123456789.,")
            value = (
                f"{100 * figure:.1f} %" if unit == "%" else f"{figure:,.{2 if figure < 1000 else 0}f} {unit}".rstrip()
            )
            lines.append(f"  {what:<48}{wanted:>12}{value:>15}  {'reached' if reached else 'NOT REACHED'}")
        return lines

    def _asked(self) -> list[tuple[str, str, float, float | None]]:
        """What, the figure wanted for people, the same as a number, and what was measured."""
        idle, wide = self.numbers.get(f"{IDLE_MIB} 64"), self.figures.get(_many(64))
        return [
            ("window open: share of the wire", ">= 95 %", 0.95, self._share(OPEN)),
            ("window open: against printcore", ">= 1.7", 1.7, self._ratio(OPEN, PRINTCORE)),
            ("window open: against OctoPrint", ">= 2.1", 2.1, self._ratio(OPEN, OCTOPRINT)),
            ("one in flight: against printcore", ">= 1.2", 1.2, self._ratio(ONE, PRINTCORE)),
            ("window open: CPU a line against OctoPrint", "<= 0.2", 0.2, self._cpu_ratio()),
            ("16 printers: share of the wire, slowest", ">= 90 %", 0.9, self._share(_many(16))),
            ("64 printers, idle: RSS", "<= 100 MiB", 100.0, idle),
            ("64 printers, streaming: RSS", "<= 100 MiB", 100.0, wide and wide.peak_mib),
            ("window open, 1 ms latency: share of the wire", ">= 90 %", 0.9, self._share(OPEN_1MS)),
            ("abort while 16 stream: p99", "<= 50 ms", 50.0, self.numbers.get(ABORT_MS)),
            ("analysis", ">= 100,000 /s", 100_000, self.numbers.get(ANALYSIS)),
        ]

    def _share(self, name: str) -> float | None:
        found = self.figures.get(name)
        return found and found.wire_share

    def _cpu_ratio(self) -> float | None:
        our, their = self.figures.get(OPEN), self.figures.get(OCTOPRINT)
        return our.cpu_s_per_100k / their.cpu_s_per_100k if our and their else None


def report() -> tuple[list[str], int]:
    """Measure everything; the tables, line by line, and how many figures are missing."""
    bench = Bench()
    lines = bench.run()
    return lines, len(bench.missing)


def _many(count: int) -> str:
    return f"ours, {count} in one daemon"


def _ours(
    folder: Path,
    count: int = 1,
    *,
    window: str = "full",
    latency_ms: float = 0.0,
    idle_mib: dict[str, float] | None = None,
) -> Figures:
    """Our daemon with so many printers; what it holds before any of them prints goes to `idle_mib`."""
    with printers(folder, count, latency_ms) as paced, ours.site(folder, paced, count, window) as daemon:
        if idle_mib is not None:
            idle_mib[f"{IDLE_MIB} {count}"] = usage(daemon.pid).rss_mib
        daemon.submit()
        return measured(daemon.pid, paced, daemon.wait_ended)


def _theirs(folder: Path, host: Callable[[Path, Printers], Figures], latency_ms: float = 0.0) -> Figures:
    with printers(folder, latency_ms=latency_ms) as paced:
        return host(folder, paced)


def _abort_latencies_ms(folder: Path) -> list[float]:
    """From the moment an abort was due until its last byte has crossed the wire."""
    count = ABORT_PRINTERS + ABORT_SPARE
    with printers(folder, count, lines=NO_END) as paced:
        command = [sys.executable, "-m", "bench.aborts", "--printers", str(count), "--least", str(ABORT_PRINTERS)]
        command += ["--seconds", str(ABORT_S)]
        command += ["--program", str(write_program(folder / "bench.gcode")), "--folder", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        if done.returncode:
            raise MissingError(f"bench.aborts has failed: {done.stderr.strip().splitlines()[-1:]}")
        arrived_s = [iter(report["aborts_s"]) for report in paced.reports()]
    latencies_ms = []
    for index, due_s in json.loads(done.stdout):
        at_s = next(arrived_s[index], None)
        if at_s is None:
            raise MissingError(f"an abort of printer {index} has not arrived")
        latencies_ms.append(1000 * (at_s - due_s))
    if not latencies_ms:
        raise MissingError("not one abort was possible in time")
    return latencies_ms


def _percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


def _seconds(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s
