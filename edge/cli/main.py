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
from typing import NoReturn

from edge import DISTRIBUTION
from edge.cli.args import group
from edge.cli.collect_args import add_collect_commands
from edge.cli.site_args import add_job_commands, add_machine_commands, add_site_commands
from edge.cli.text import complain
from edge.cli.time_args import add_time_commands
from edge.cli.trust_args import add_signing_commands, add_trust_commands
from edge.errors import EdgeError

EXIT_FINE = 0
EXIT_ATTENTION = 1
EXIT_FAILED = 2


def parser() -> argparse.ArgumentParser:
    """Every command with its arguments."""
    top = argparse.ArgumentParser(prog="edge", description="Edge runtime for micro-factories.")
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    top.add_argument(
        "--config", type=Path, metavar="FILE", help="site.toml (else $EDGE_CONFIG, ./site.toml, /etc/edge)"
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add_site_commands(commands)
    job_commands = group(commands, "job", "sign a job, hand it over, look at it, steer it")
    add_signing_commands(job_commands)
    add_job_commands(job_commands)
    machine_commands = group(commands, "machine", "look at a machine, clear it, load it, take it out of service")
    add_machine_commands(machine_commands)
    add_trust_commands(commands)
    add_collect_commands(commands)
    add_time_commands(commands)
    return top


class _Version(argparse.Action):
    """As argparse's own, but nothing is looked up for the other commands."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        from importlib.metadata import version

        print(f"edge {version(DISTRIBUTION)}")
        parser.exit()


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    args, unknown = parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")  # with the usage of this command
    try:
        handler = args.handler
        code: int = handler(args)
    except EdgeError as error:
        complain(str(error))
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`edge events | head`) has gone: nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FINE
    except Exception as error:  # noqa: BLE001 - the outermost boundary: logged whole, told as one sentence
        from edge.cli.crash import record_crash

        complain(f"internal error: {record_crash(error)}")
        return EXIT_FAILED
    return code


if __name__ == "__main__":
    sys.exit(main())
