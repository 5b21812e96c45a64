"""How long a person waits for `edge status`, beside the shortest that Python itself can take.

Starts a site of its own, with one machine that is not there. Each round runs every command once, in turn, so that
whatever else the host does meanwhile falls on all of them alike; the medians count.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROUNDS = 15
START_S = 30.0
BASE = "python3 -c pass"

SITE = """\
[site]
id = "bench-1"
state_dir = "state"
socket = "edge.sock"
trust_root = "root.dsse.json"

[[machines]]
id = "prn-1"
driver = "gcode"
processes = ["fdm"]
connection = {port = "/dev/nobody-there"}
limits = {x_mm = [0, 200], y_mm = [0, 200], z_mm = [0, 200]}
"""


def report() -> list[str]:
    """Measure; the table, line by line."""
    edge = str(Path(sys.executable).with_name("edge"))
    with tempfile.TemporaryDirectory(prefix="edge-bench-") as name:
        alive, dead = Path(name, "alive"), Path(name, "dead")
        for folder in (alive, dead):
            _make_site(edge, folder)
        with _daemon(edge, dead):
            pass  # so that it has a journal
        with _daemon(edge, alive):
            commands = {
                BASE: [sys.executable, "-c", "pass"],
                "edge status, daemon alive": [edge, "--config", str(alive / "site.toml"), "status"],
                "edge status, daemon dead": [edge, "--config", str(dead / "site.toml"), "status"],
            }
            times_s = _measure(commands)
    return _table(times_s)


def _make_site(edge: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "site.toml").write_text(SITE, encoding="utf-8")
    for words in (
        ["key", "new", "owner"],
        ["root", "new", "--name", "Bench", "--out", "root.dsse.json", "--root", "owner.pub", "--issuer", "owner.pub"],
        ["root", "sign", "root.dsse.json", "--key", "owner.key"],
    ):
        subprocess.run([edge, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _daemon(edge: str, folder: Path) -> Iterator[None]:
    """A running daemon that has found out that its machine is not there."""
    command = [edge, "--config", str(folder / "site.toml"), "run"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "is offline" in line:
                    break
            yield
        finally:
            process.terminate()
            process.communicate(timeout=START_S)


def _measure(commands: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    times_s: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(ROUNDS + 1):
        for name, command in commands.items():
            began_s = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            if number:  # the first round fills the caches
                times_s[name].append(time.perf_counter() - began_s)
    return times_s


def _table(times_s: Mapping[str, Sequence[float]]) -> list[str]:
    base_s = statistics.median(times_s[BASE])
    lines = [
        f"edge status: wall time, median of {ROUNDS} runs each, in turn",
        "",
        f"  {'COMMAND':<28}{'MEDIAN ms':>10}{'FASTEST':>9}{'SLOWEST':>9}{'RATIO':>8}",
    ]
    columns: list[Callable[[Sequence[float]], float]] = [statistics.median, min, max]
    for name, values_s in times_s.items():
        figures = [1000 * column(values_s) for column in columns]
        ratio = statistics.median(values_s) / base_s
        lines.append(f"  {name:<28}{figures[0]:>10.1f}{figures[1]:>9.1f}{figures[2]:>9.1f}{ratio:>8.2f}")
    return lines
