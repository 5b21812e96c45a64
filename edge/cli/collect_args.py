"""The arguments of `edge collect`; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.cli.args import Commands, command

CONFIG = "collector.toml (else ./collector.toml)"


def add_collect_commands(commands: Commands) -> None:
    """`collect` and what stands below it."""
    summary = "receive what sites report, at the centre, until SIGTERM"
    collect = command(commands, "collect", summary, _serve, answers=False, config=CONFIG)
    collect.add_argument("--ndjson", action="store_true", help="write each new event as a line to standard output")
    help_ = "and each message of newest values, which are no facts; with --ndjson"
    collect.add_argument("--telemetry", action="store_true", help=help_)
    below = collect.add_subparsers(metavar="WHAT")
    init = command(below, "init", "write a collector.toml to begin with, and make the collector's key", _init)
    init.add_argument("dir", type=Path, metavar="DIR")
    status = command(below, "status", "all sites at a glance, and the alarms", _status, config=CONFIG)
    help_ = "every newest value too, with its age"
    status.add_argument("--values", action="store_true", help=help_)
    command(below, "clear", "say that somebody has seen the alarms", _clear, config=CONFIG)


def _serve(args: argparse.Namespace) -> int:
    from edge.cli import collect

    return collect.serve(args)


def _init(args: argparse.Namespace) -> int:
    from edge.cli import collect

    return collect.init(args)


def _status(args: argparse.Namespace) -> int:
    from edge.cli import collect

    return collect.status(args)


def _clear(args: argparse.Namespace) -> int:
    from edge.cli import collect

    return collect.clear(args)
