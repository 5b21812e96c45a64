"""The arguments of `edge time` and `edge journal`; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.cli.args import Commands, command, group


def add_time_commands(commands: Commands) -> None:
    """`time` and `journal`."""
    time = group(commands, "time", "the site's clock, and signed times")
    command(time, "show", "what the site's clock is worth, and the nonce that a signed time answers", _show)
    sign = command(time, "sign", "sign what time it is now, in answer to a site's nonce", _sign)
    sign.add_argument("nonce", metavar="NONCE", help="what `edge time show` says on the site")
    sign.add_argument(
        "--key",
        type=Path,
        action="append",
        required=True,
        metavar="KEY.key",
        help="of the role time; an operator's beside it may also lower the site's floor; may be repeated",
    )
    sign.add_argument("--out", "-o", type=Path, required=True, metavar="FILE")
    sign.add_argument("--passphrase-file", type=Path, metavar="FILE", help="its first line opens the private keys")
    submit = command(time, "submit", "hand a signed time to the site", _submit)
    submit.add_argument("file", type=Path, metavar="FILE")

    journal = group(commands, "journal", "the site's journal; `edge verify` looks whether it holds")
    summary = "let work begin on a journal that is held: you have found out what was done, so nothing is done twice"
    command(journal, "confirm", summary, _confirm)


def _show(args: argparse.Namespace) -> int:
    from edge.cli import time

    return time.show(args)


def _sign(args: argparse.Namespace) -> int:
    from edge.cli import time_sign

    return time_sign.sign(args)


def _submit(args: argparse.Namespace) -> int:
    from edge.cli import submit

    return submit.command(args)


def _confirm(args: argparse.Namespace) -> int:
    from edge.cli import time

    return time.confirm(args)
