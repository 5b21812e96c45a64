"""The arguments of `edge key`, `edge root`, `edge verify` and `edge job sign|cosign`; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.cli.args import Commands, command


def add_trust_commands(commands: Commands) -> None:
    """`key`, `root` and `verify`."""
    key = commands.add_parser("key", help="make and show keys").add_subparsers(metavar="WHAT", required=True)
    new = command(key, "new", "make a key pair: NAME.key and NAME.pub", _key_new)
    new.add_argument("name", metavar="NAME", help="whose key it is, such as orders@acme")
    new.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to (default: here)")
    show = command(key, "show", "the public part of a key file", _key_show)
    show.add_argument("file", type=Path, metavar="FILE")

    root = commands.add_parser("root", help="make, sign and show a trust root").add_subparsers(
        metavar="WHAT", required=True
    )
    new = command(root, "new", "make version 1 of a trust root, still unsigned", _root_new)
    new.add_argument("--out", type=Path, required=True, metavar="FILE")
    new.add_argument("--name", required=True, help="whose root it is, such as ACME")
    for role, required in (
        ("root", True),
        ("issuer", True),
        ("operator", False),
        ("time", False),
        ("collector", False),
    ):
        new.add_argument(
            f"--{role}",
            type=Path,
            nargs="+",
            action="extend",
            default=[],
            required=required,
            metavar="KEY.pub",
            help=f"keys of the role '{role}'",
        )
    new.add_argument(
        "--threshold", action="append", default=[], metavar="ROLE=N", help="keys that have to sign (default: 1)"
    )
    new.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="KEYNAME:LIMIT",
        help="all that a key may sign, as processes=fdm,mill or sites=berlin-1",
    )
    new.add_argument("--expires-at", metavar="TIME", help="RFC 3339 UTC with Z (default: never)")
    sign = command(root, "sign", "add a signature to a trust root", _root_sign)
    sign.add_argument("file", type=Path, metavar="FILE")
    sign.add_argument("--key", type=Path, required=True, metavar="KEY.key")
    show = command(root, "show", "what a trust root says and who signed it", _root_show)
    show.add_argument("file", type=Path, metavar="FILE")

    verify = command(commands, "verify", "whether a signed file holds; without FILE, whether the journal does", _verify)
    verify.add_argument("file", type=Path, nargs="?", metavar="FILE", help="a trust root, an envelope or a bundle")
    verify.add_argument("--root", type=Path, metavar="ROOT", help="the trust root to verify with")


def add_signing_commands(job_commands: Commands) -> None:
    """`job sign` and `job cosign`."""
    sign = command(job_commands, "sign", "make a signed bundle from an order file", _job_sign)
    sign.add_argument("file", type=Path, metavar="ORDER.toml")
    sign.add_argument("--key", type=Path, action="append", required=True, metavar="KEY.key", help="may be repeated")
    sign.add_argument("--out", type=Path, metavar="FILE.mfjob", help="default: beside the order file")
    cosign = command(job_commands, "cosign", "add a signature to a bundle or an envelope", _job_cosign)
    cosign.add_argument("file", type=Path, metavar="FILE")
    cosign.add_argument("--key", type=Path, required=True, metavar="KEY.key")


def _key_new(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.key_new(args)


def _key_show(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.key_show(args)


def _root_new(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.root_new(args)


def _root_sign(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.root_sign(args)


def _root_show(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.root_show(args)


def _verify(args: argparse.Namespace) -> int:
    if args.file is None:
        from edge.cli import journal

        return journal.verify(args)
    from edge.cli import trust_verify

    return trust_verify.verify(args)


def _job_sign(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.job_sign(args)


def _job_cosign(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.job_cosign(args)
