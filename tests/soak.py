"""Kill the daemon at random moments of prints until it is enough: ``make soak KILLS=200 SEED=7``.

Exit code 1 with the seed if a command is missing, or was carried out twice, or a print did not end well.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import tempfile
import time
from pathlib import Path

from tests.helpers.killing import SPEED, print_through_kills
from tests.helpers.site import site_with_printer


def main() -> int:
    """Print and kill."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Prints, and a daemon that is killed.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument("--keep", type=Path, help="an empty folder for the site, which is kept (default: none is)")
    arguments = parser.parse_args()
    seed = secrets.randbelow(2**31) if arguments.seed is None else arguments.seed
    print(f"{arguments.kills} kills, SEED={seed}", flush=True)
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True)
        return soak(arguments.keep, arguments.kills, seed)
    with tempfile.TemporaryDirectory() as folder:
        return soak(Path(folder), arguments.kills, seed)


def soak(folder: Path, kills: int, seed: int) -> int:
    """Print until the daemon was killed so often; 1 if a log is not exact."""
    moments = random.Random(seed)
    began_s = time.monotonic()
    done = prints = resumed = 0
    with site_with_printer(folder, speed=SPEED) as (site, printer):
        while done < kills:
            try:
                found = print_through_kills(site, printer, moments, kills - done)
            except AssertionError as error:
                print(f"NOT EXACT after {done} kills and more in print {prints + 1}, SEED={seed}: {error}")
                return 1
            done, prints, resumed = done + found.kills, prints + 1, resumed + found.resumed
            print(f"{done} kills, {prints} prints exact, {resumed} times resumed", flush=True)
    took_s = time.monotonic() - began_s
    print(f"all exact: {done} kills in {prints} prints, {resumed} times resumed, {took_s:.0f} s, SEED={seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
