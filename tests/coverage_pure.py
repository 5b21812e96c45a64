"""Whether every branch of the PURE modules was tested; `make test` runs this on what it measured."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pure_modules() -> list[str]:
    """As the import contract of pyproject.toml lists them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (modules,) = [c["source_modules"] for c in contracts if c["name"].startswith("pure modules")]
    return [name.replace(".", "/") for name in modules]


def main() -> int:
    """Exit code 2 if a branch was not taken, with its lines."""
    files = [f"{name}.py" if (ROOT / f"{name}.py").exists() else f"{name}/*.py" for name in pure_modules()]
    options = ["--show-missing", "--skip-covered", "--fail-under=100", f"--include={','.join(files)}"]
    return subprocess.run([sys.executable, "-m", "coverage", "report", *options], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
