"""Prints a file with Printrun's printcore; run by the Python that has it: ``printcore_host.py PORT FILE``."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from printrun import gcoder
from printrun.printcore import printcore

ONLINE_S = 30.0
PRINT_S = 90.0


def main(port: str, program: str) -> int:
    online, ended = threading.Event(), threading.Event()
    host = printcore()
    host.onlinecb = online.set
    host.endcb = ended.set
    host.connect(port, 250000)
    if not online.wait(ONLINE_S):
        print("printcore did not come online")
        return 1
    host.startprint(gcoder.LightGCode(Path(program).read_text().splitlines()))
    if not ended.wait(PRINT_S):
        print(f"printcore did not end: line {host.queueindex}")
        return 1
    host.disconnect()
    print("printed")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
