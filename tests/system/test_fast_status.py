"""`edge status` loads nothing heavy, with the daemon alive and dead: it has to be fast on a Raspberry Pi."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.site import DEADLINE_S, SiteFolder

HEAVY = ("pydantic", "asyncio", "aiohttp", "cryptography", "multiprocessing")

PROGRAM = """\
import json, sys
from edge.cli.main import main
code = main(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize("alive", [True, False])
def test_status_imports_nothing_heavy(tmp_path: Path, alive: bool) -> None:
    site = SiteFolder(tmp_path, "")
    daemon = site.start(ready="is up")
    if not alive:
        daemon.end()
    command = [sys.executable, "-c", PROGRAM, "--config", str(site.config), "status"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == (0 if alive else 1)
    assert [name for name in modules if name.split(".")[0] in HEAVY] == []
    daemon.end()
