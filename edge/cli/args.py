"""How a command is added to the parser; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

Handler = Callable[[argparse.Namespace], int]


def command(commands: Commands, name: str, summary: str, handler: Handler) -> argparse.ArgumentParser:
    """Add a command with its ``--json``; its parser, for further arguments."""
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    parser.add_argument("--json", action="store_true", help="machine-readable output, see docs/json.md")
    parser.set_defaults(handler=handler)
    return parser
