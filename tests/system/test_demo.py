"""`edge demo`, as the first thing that anybody types."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_demo_ends_well_in_an_80_column_terminal_and_leaves_nothing_behind(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("edge")), "demo"],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert lines[-1].startswith("demo: ok")
    assert [line for line in lines if len(line.replace(str(tmp_path), "/tmp")) > 80] == []
    assert list(tmp_path.iterdir()) == []
