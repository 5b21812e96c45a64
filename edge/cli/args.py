"""How a command is added to the parser; imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

Handler = Callable[[argparse.Namespace], int]


def command(
    commands: Commands,
    name: str,
    summary: str,
    handler: Handler,
    *,
    answers: bool = True,
    config: str = argparse.SUPPRESS,
) -> argparse.ArgumentParser:
    """Add a command, with ``--json`` if it `answers`; its parser, for further arguments.

    People write ``--config`` behind the command as well. The help of `edge` names it; `config` is the help of a command
    that has another file.
    """
    parser = commands.add_parser(name, help=summary, description=_sentence(summary))
    if answers:
        parser.add_argument("--json", action="store_true", help="machine-readable output, see docs/json.md")
    parser.add_argument("--config", type=Path, metavar="FILE", default=argparse.SUPPRESS, help=config)
    parser.set_defaults(handler=handler, parser=parser)
    return parser


def group(commands: Commands, name: str, summary: str) -> Commands:
    """Add a word that commands stand behind."""
    parser = commands.add_parser(name, help=summary, description=_sentence(summary))
    return parser.add_subparsers(metavar="WHAT", required=True)


def _sentence(summary: str) -> str:
    return summary[0].upper() + summary[1:] + "."
