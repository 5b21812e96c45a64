"""`edge root|command|time submit`: hand a signed file to the daemon and print its verdict."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.errors import RefusedError, UsageError
from edge.reading.status import FINE, UNSAFE
from edge.sitefile import SiteFile


def roots(args: argparse.Namespace) -> int:
    """One version after the other; the first that is refused is the last that is sent."""
    file = sitefile.read(sitefile.find(args.config))
    verdicts: list[dict[str, Any]] = []
    for path in args.files:
        verdicts.append(_sent(file, path))
        if not args.json:
            print("\n".join(_lines(path, verdicts[-1])))
        if not verdicts[-1]["accepted"]:
            break
    if args.json:
        text.print_json(verdicts)
    return FINE if verdicts[-1]["accepted"] else UNSAFE


def command(args: argparse.Namespace) -> int:
    """A command or a signed time: 0 if it is taken, 2 if it is refused."""
    file = sitefile.read(sitefile.find(args.config))
    verdict = _sent(file, args.file)
    if args.json:
        text.print_json(verdict)
    else:
        print("\n".join(_lines(args.file, verdict)))
    return FINE if verdict["accepted"] else UNSAFE


def _sent(file: SiteFile, path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as content:
            verdict: dict[str, Any] = call(file.socket, "POST", "/v1/envelopes", content)
    except RefusedError as error:
        raise RefusedError(f"{path}: {error}") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    return verdict


def _lines(path: Path, verdict: dict[str, Any]) -> list[str]:
    again = " (as before: nothing is done)" if verdict["repeated"] else ""
    if verdict["accepted"]:
        return text.wrap(f"{path.name}: {verdict['detail']}{again}", "")
    return text.wrap(f"{path.name} is refused, {verdict['reason']}: {verdict['detail']}{again}", "")
