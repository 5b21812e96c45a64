"""The arguments of `edge key|root|command|verify` and `edge job sign|cosign`; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.cli.args import Commands, command, group


def add_trust_commands(commands: Commands) -> None:
    """`key`, `root` and `verify`."""
    key = group(commands, "key", "make and show keys")
    new = command(key, "new", "make a key pair: NAME.key and NAME.pub", _key_new)
    new.add_argument("name", metavar="NAME", help="whose key it is, such as orders@acme")
    new.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to (default: here)")
    new.add_argument("--passphrase", action="store_true", help="ask for a passphrase that the private key is put under")
    _add_passphrase_file(new)
    show = command(key, "show", "the public part of a key file", _key_show)
    show.add_argument("file", type=Path, metavar="FILE")
    _add_passphrase_file(show)
    _add_root_commands(commands)

    verify = command(commands, "verify", "whether a signed file holds; without FILE, whether the journal does", _verify)
    verify.add_argument("file", type=Path, nargs="?", metavar="FILE", help="a trust root, an envelope or a bundle")
    verify.add_argument("--root", type=Path, metavar="ROOT", help="the trust root to verify with")

    _add_command_commands(group(commands, "command", "sign a command to a site, and hand it over"))


def _add_passphrase_file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="the passphrase of a private key is its first line"
    )


def _add_root_commands(commands: Commands) -> None:
    root = group(commands, "root", "make, sign, show and hand over a trust root")
    new = command(root, "new", "make version 1 of a trust root, still unsigned", _root_new)
    new.add_argument("--out", type=Path, required=True, metavar="FILE")
    new.add_argument("--name", required=True, help="whose root it is, such as ACME")
    _add_roles(new, required=("root", "issuer"))
    new.add_argument("--expires-at", metavar="TIME", help="RFC 3339 UTC with Z (default: never)")
    add = command(root, "add", "make the next version, with more keys or another threshold", _root_add)
    _add_succession(add)
    _add_roles(add, required=())
    rotate = command(root, "rotate", "make the next version, with one key in the place of another", _root_rotate)
    _add_succession(rotate)
    rotate.add_argument("old", metavar="OLD", help="the key that goes: its name, or the beginning of its id")
    rotate.add_argument("new", type=Path, metavar="NEW.pub", help="the key that takes its roles and limits")
    revoke = command(root, "revoke", "make the next version, under which a key counts no more", _root_revoke)
    _add_succession(revoke)
    revoke.add_argument("key", metavar="KEY", help="its name, or the beginning of its id")
    revoke.add_argument("--reason", required=True, metavar="TEXT", help="shown wherever the key is refused")
    revoke.add_argument(
        "--compromise", action="store_true", help="somebody else may have it: also stop what runs under it"
    )
    sign = command(root, "sign", "add a signature to a trust root", _root_sign)
    sign.add_argument("file", type=Path, metavar="FILE")
    sign.add_argument("--key", type=Path, required=True, metavar="KEY.key")
    _add_passphrase_file(sign)
    show = command(root, "show", "what a trust root says and who signed it", _root_show)
    show.add_argument("file", type=Path, nargs="?", metavar="FILE", help="default: the one in force at this site")
    show.add_argument("--after", type=Path, metavar="OLD", help="also whether it follows this version")
    submit = command(root, "submit", "hand the next versions to the site, one after the other", _root_submit)
    submit.add_argument("files", type=Path, nargs="+", metavar="FILE")


def _add_roles(parser: argparse.ArgumentParser, required: tuple[str, ...]) -> None:
    for role in ("root", "issuer", "operator", "time", "collector"):
        parser.add_argument(
            f"--{role}",
            type=Path,
            nargs="+",
            action="extend",
            default=[],
            required=role in required,
            metavar="KEY.pub",
            help=f"keys of the role '{role}'",
        )
    parser.add_argument(
        "--threshold", action="append", default=[], metavar="ROLE=N", help="keys that have to sign (default: 1)"
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="KEYNAME:LIMIT",
        help="all that a key may sign, as processes=fdm,mill or sites=berlin-1",
    )


def _add_succession(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="the version before, with all its signatures")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--expires-at", metavar="TIME", help="RFC 3339 UTC with Z, or 'never' (default: as before)")


def _add_command_commands(commands: Commands) -> None:
    sign = command(commands, "sign", "sign a command to one site, good for ten minutes at most", _command_sign)
    sign.add_argument("verb", choices=("cancel", "hold", "release", "retry", "scrap", "decline", "clear"))
    sign.add_argument("--site", required=True, metavar="ID")
    about = sign.add_mutually_exclusive_group(required=True)
    about.add_argument("--job", metavar="JOB", help="its whole id")
    about.add_argument("--machine", metavar="ID")
    sign.add_argument("--run", metavar="RUN", help="only while this is the newest run")
    sign.add_argument("--if-revision", type=int, metavar="N", help="only while the job is at this revision")
    sign.add_argument("--reason", default="", metavar="TEXT", help="recorded with the name of the key")
    sign.add_argument("--minutes", type=int, default=10, metavar="N", help="how long it is good (default: 10)")
    sign.add_argument("--issuer", metavar="NAME", help="the name of the first key (default: as its .pub file says)")
    sign.add_argument("--key", type=Path, action="append", required=True, metavar="KEY.key", help="may be repeated")
    sign.add_argument("--out", "-o", type=Path, required=True, metavar="FILE")
    _add_passphrase_file(sign)
    submit = command(commands, "submit", "hand a signed command to the site", _command_submit)
    submit.add_argument("file", type=Path, metavar="FILE")


def add_signing_commands(job_commands: Commands) -> None:
    """`job sign` and `job cosign`."""
    sign = command(job_commands, "sign", "make a signed bundle from an order file", _job_sign)
    sign.add_argument("file", type=Path, metavar="ORDER.toml")
    sign.add_argument("--key", type=Path, action="append", required=True, metavar="KEY.key", help="may be repeated")
    sign.add_argument("--out", type=Path, metavar="FILE.mfjob", help="default: beside the order file")
    _add_passphrase_file(sign)
    cosign = command(job_commands, "cosign", "add a signature to a bundle or an envelope", _job_cosign)
    cosign.add_argument("file", type=Path, metavar="FILE")
    cosign.add_argument("--key", type=Path, required=True, metavar="KEY.key")
    _add_passphrase_file(cosign)


def _key_new(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.key_new(args)


def _key_show(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.key_show(args)


def _root_new(args: argparse.Namespace) -> int:
    from edge.cli import trust_root

    return trust_root.root_new(args)


def _root_add(args: argparse.Namespace) -> int:
    from edge.cli import trust_root

    return trust_root.root_add(args)


def _root_rotate(args: argparse.Namespace) -> int:
    from edge.cli import trust_root

    return trust_root.root_rotate(args)


def _root_revoke(args: argparse.Namespace) -> int:
    from edge.cli import trust_root

    return trust_root.root_revoke(args)


def _root_sign(args: argparse.Namespace) -> int:
    from edge.cli import trust_root

    return trust_root.root_sign(args)


def _root_show(args: argparse.Namespace) -> int:
    from edge.cli import trust_root

    return trust_root.root_show(args)


def _root_submit(args: argparse.Namespace) -> int:
    from edge.cli import submit

    return submit.roots(args)


def _command_sign(args: argparse.Namespace) -> int:
    from edge.cli import trust

    return trust.command_sign(args)


def _command_submit(args: argparse.Namespace) -> int:
    from edge.cli import submit

    return submit.command(args)


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
