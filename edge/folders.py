"""The site's own directories: made so that the group may look in, and looked at before the daemon needs them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

STATE_DIR_MODE = 0o2750
"""Setgid: what is made inside belongs to the directory's group, whose members may read it."""

UMASK = 0o027
"""Of the daemon: nothing it makes is for others."""


def make_state_dir(state_dir: Path) -> None:
    """Make it with `STATE_DIR_MODE`; one that is there keeps the mode that somebody gave it. Raises `OSError`."""
    state_dir.parent.mkdir(parents=True, exist_ok=True)
    if not state_dir.is_dir():
        state_dir.mkdir()
        state_dir.chmod(STATE_DIR_MODE)


HEAD = "journal.head"
"""The head file (`edge.journal.headfile`), in the state directory and in the runtime directory."""

FIRST_START = "first-start"
"""A file of the state directory of a site that has never run: `edge init` makes it, the first start takes it away."""


def set_up_anew(state_dir: Path) -> None:
    """A person sets up a new site here: whatever ran under this name since the boot was another. Raises `OSError`."""
    (state_dir / FIRST_START).touch()
    with contextlib.suppress(PermissionError):  # another user's daemon: its first start will ask a person
        (runtime_dir(state_dir) / HEAD).unlink(missing_ok=True)


def is_first_start(state_dir: Path) -> bool:
    """Whether somebody has set up this site anew, and it has not run since."""
    return (state_dir / FIRST_START).exists()


def has_begun(state_dir: Path) -> None:
    """The site has run: a journal that is missing from now on was lost. Raises `OSError`."""
    (state_dir / FIRST_START).unlink(missing_ok=True)


def recording(state_dir: Path, machine: str) -> Path:
    """What has crossed a machine's wire, if the site records it (`edge.transcript`); the older half ends in ``.1``."""
    return state_dir / "wire" / f"{machine}.txt"


def unwritable(directory: Path) -> str:
    """Why nothing can be made in `directory`, be it there or still to be made; empty if it can. Changes nothing."""
    place = directory
    while not os.access(place, os.F_OK) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return f"{place} is no directory"
    if not os.access(place, os.W_OK | os.X_OK):
        missing = "" if place == directory else f"there is no {directory}, and "
        return f"{missing}no permission to write in {place}"
    return ""


def no_socket(path: Path) -> str:
    """Why no socket can be made at `path`; empty if it can. Changes nothing."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return f"{path} is there already, and is no socket"
    except OSError:
        pass  # nothing is there, or nobody may look: the directory says which
    return unwritable(path.parent)


def runtime_dir(state_dir: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where `make_runtime_dir` makes it."""
    named = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0] or environment.get("XDG_RUNTIME_DIR", "")
    digest = hashlib.sha256(os.fsencode(state_dir.resolve())).hexdigest()
    return Path(named or "/dev/shm") / f"edge-{digest[:16]}"


def make_runtime_dir(state_dir: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The site's directory that is cheap to write to and gone when the host is booted; nobody else may look in.

    In ``$RUNTIME_DIRECTORY`` (systemd), ``$XDG_RUNTIME_DIR`` or /dev/shm, under a name of the site's own. Raises
    `OSError` if it cannot be made, or if somebody else has made it.
    """
    directory = runtime_dir(state_dir, environment)
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        found = directory.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "somebody else has made it", str(directory)) from None
        directory.chmod(0o700)
    return directory
