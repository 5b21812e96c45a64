"""The `edge` command: one parser, and one handler a command.

A handler's module is imported only when its command runs, so that `edge status` stays fast on a Raspberry Pi. Handlers
take the parsed arguments and return the exit code: 0 fine, 1 needs attention, 2 unsafe or failed.

No traceback reaches the terminal: an `EdgeError` is one sentence; anything else is our bug, and its traceback is in the
log under the id that the message gives.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from edge.cli.collect_args import add_collect_commands
from edge.cli.site_args import add_job_commands, add_machine_commands, add_site_commands
from edge.cli.text import plain
from edge.cli.time_args import add_time_commands
from edge.cli.trust_args import add_signing_commands, add_trust_commands
from edge.errors import EdgeError

EXIT_FINE = 0
EXIT_ATTENTION = 1
EXIT_FAILED = 2


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments."""
    top = argparse.ArgumentParser(prog="edge", description="Edge runtime for micro-factories.")
    top.add_argument(
        "--config", type=Path, metavar="FILE", help="site.toml (else $EDGE_CONFIG, ./site.toml, /etc/edge)"
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_site_commands(commands)
    job_commands = commands.add_parser("job", help="one job").add_subparsers(metavar="WHAT", required=True)
    add_signing_commands(job_commands)
    add_job_commands(job_commands)
    machine_commands = commands.add_parser("machine", help="one machine").add_subparsers(metavar="WHAT", required=True)
    add_machine_commands(machine_commands)
    add_trust_commands(commands)
    add_collect_commands(commands)
    add_time_commands(commands)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    args = parser().parse_args(argv)
    try:
        handler = args.handler
        code: int = handler(args)
    except EdgeError as error:
        print("\n".join(plain(line) for line in f"edge: {error}".splitlines()), file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`edge events | head`) has gone: nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FINE
    except Exception as error:  # noqa: BLE001 - the outermost boundary: logged whole, told as one sentence
        from edge.cli.crash import record_crash

        print(f"edge: internal error: {record_crash(error)}", file=sys.stderr)
        return EXIT_FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
