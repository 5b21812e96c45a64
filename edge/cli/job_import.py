"""`edge job import`: what is on a stick, handed to the daemon in the name of the person who plugged it in.

The daemon needs no permission to read the stick, and the stick needs not be writable: the same bytes again get the
same answer, so importing twice does nothing twice.
"""

from __future__ import annotations

import argparse
import os
import stat
from pathlib import Path
from typing import Any

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.cli.jobs import receipt_level, receipt_lines
from edge.errors import NotRunningError, RefusedError, UsageError
from edge.reading.status import UNSAFE

SUFFIXES = (".mfjob", ".dsse.json")


def import_(args: argparse.Namespace) -> int:
    """Hand every bundle and envelope of a directory to the daemon: 0 all accepted, 1 a file is missing, 2 refused."""
    file = sitefile.read(sitefile.find(args.config))
    found = []
    for path in _files(args.dir):
        try:
            with os.fdopen(_open(path), "rb") as content:
                found.append(
                    {"file": path.name, "error": None, "receipt": call(file.socket, "POST", "/v1/jobs", content)}
                )
        except NotRunningError:
            raise
        except (RefusedError, UsageError) as error:
            found.append({"file": path.name, "error": str(error), "receipt": None})
        except OSError as error:
            found.append({"file": path.name, "error": error.strerror or str(error), "receipt": None})
    if args.json:
        text.print_json(found)
    else:
        for item in found:
            print("\n".join(_lines(item)))
    return max(_level(item) for item in found)


def _files(directory: Path) -> list[Path]:
    try:
        found = sorted(path for path in directory.iterdir() if path.name.endswith(SUFFIXES) and path.name[0] != ".")
    except OSError as error:
        raise UsageError(f"{directory}: {error.strerror}; name the directory that the stick is mounted at") from error
    if not found:
        raise UsageError(f"{directory} has no file whose name ends with {' or '.join(SUFFIXES)}")
    return found


def _open(path: Path) -> int:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UsageError("it is no plain file")
    return handle


def _lines(item: dict[str, Any]) -> list[str]:
    if item["error"] is not None:
        return text.wrap(f"{item['file']} is refused: {item['error']}", "")
    return text.wrap(f"{item['file']}:", "") + receipt_lines(Path(item["file"]), item["receipt"])


def _level(item: dict[str, Any]) -> int:
    return UNSAFE if item["receipt"] is None else receipt_level(item["receipt"])
