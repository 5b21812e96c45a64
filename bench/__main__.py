"""All figures, or those of one part: ``python -m bench PART``. Exit code 1 if a figure is missing."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys

from bench import octoprints, opcua, orders, printers, reporting, status, uplink


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench")
    parts = ["all", "status", "printers", "octoprint", "uplink", "opcua", "trust"]
    parser.add_argument("part", nargs="?", choices=parts, default="all")
    part = parser.parse_args().part
    today = datetime.datetime.now(datetime.UTC).date()
    print(f"{today}, {os.cpu_count()} {platform.machine()} cores, Python {platform.python_version()}")
    missing = 0
    if part in ("all", "status"):
        print("\n" + "\n".join(status.report()), flush=True)
    if part in ("all", "uplink"):
        print("\n" + "\n".join(uplink.report()), flush=True)
        lines, missing = reporting.report()
        print("\n" + "\n".join(lines), flush=True)
    if part in ("all", "opcua"):
        lines, more = opcua.report()
        missing += more
        print("\n" + "\n".join(lines), flush=True)
    if part in ("all", "printers"):
        lines, more = printers.report()
        missing += more
        print("\n" + "\n".join(lines), flush=True)
    if part in ("all", "octoprint"):
        lines, more = octoprints.report()
        missing += more
        print("\n" + "\n".join(lines), flush=True)
    if part in ("all", "trust"):
        lines, more = orders.report()
        missing += more
        print("\n" + "\n".join(lines))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
