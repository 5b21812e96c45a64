"""`edge make-safe`: by the daemon, or without one by the drivers themselves."""

from __future__ import annotations

import argparse
import getpass
import os
import time
from pathlib import Path
from typing import Any

from edge import folders, plugins, sitefile
from edge.cli import text
from edge.cli.client import call
from edge.cli.crash import log_to_file
from edge.errors import ConfigError, EdgeError, NoJournalError, NotRunningError, UsageError
from edge.guard.make_safe import HELD, Made, all_safe, leave_mark, leave_note
from edge.journal.maintenance import back_command
from edge.journal.schema import FILE_NAME
from edge.journal.store import locked
from edge.model.site import SiteConfig, validate
from edge.reading import views
from edge.reading.status import ATTENTION, FINE, UNSAFE

WITHIN_MAX_S = 120.0
NOTHING = "NOT ASKED: its driver does nothing without a daemon; look at the machine"
MARGIN_S = 15.0
"""What a daemon that works may take beyond that: an abort, and writing it down."""


def make_safe(args: argparse.Namespace) -> int:
    """Switch machines off, and say what each has confirmed; exit code 2 if one has not, 1 if one was not asked."""
    if not 0 < args.within <= WITHIN_MAX_S:
        raise UsageError(f"--within is {args.within:g}, more than 0 and at most {WITHIN_MAX_S:g} seconds are needed")
    path = sitefile.find(args.config)
    file = sitefile.read(path)
    alive = True
    try:
        asked = {"machines": args.machines, "within_s": args.within}
        answer = call(file.socket, "POST", "/v1/make-safe", asked, timeout_s=args.within + MARGIN_S)
        made = [Made(one["id"], one["confirmed"], one["problem"]) for one in answer]
    except NotRunningError as error:
        alive = False
        text.complain(f"{error}; the drivers are asked without it")
        made = _without_daemon(validate(file), path, args.machines, args.within)
    level = UNSAFE if any(one.problem for one in made) else FINE if all(one.confirmed for one in made) else ATTENTION
    if args.json:
        machines = [{"id": one.machine, "confirmed": one.confirmed, "problem": one.problem} for one in made]
        text.print_json({"daemon": alive, "level": level, "machines": machines})
        return level
    for one in made:
        said = f"NOT CONFIRMED: {one.problem}" if one.problem else one.confirmed or NOTHING
        print("\n".join(text.wrap(f"{one.machine}: {said}", "", "  ")))
    for one in made:
        print("\n".join(text.wrap(f"{one.machine} takes no work until somebody says:", "")))
        print(f"  {back_command(one.machine)}")
    if not made:
        print("no machine is configured")
    return level


def _without_daemon(config: SiteConfig, path: Path, names: list[str], within_s: float) -> list[Made]:
    """By the plug-ins, while no daemon can start; a note for the next daemon about each."""
    log_to_file()
    state_dir = config.site.state_dir
    equipment = plugins.load(config, path)
    known = [item.machine.id for item in equipment]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no machine {name}; there are: {', '.join(known) or 'none'}")
    try:
        os.umask(folders.UMASK)
        folders.make_state_dir(state_dir)
        with locked(state_dir / FILE_NAME, HELD):
            chosen = [item for item in equipment if not names or item.machine.id in names]
            _leave_marks(state_dir, [item.machine.id for item in chosen])
            made = all_safe(chosen, time.monotonic() + within_s)
            _leave_notes(state_dir, made)
    except OSError as error:
        expected = "run this as the daemon's user"
        problem = f"{error.filename or state_dir}: {error.strerror}"
        raise ConfigError(path, "site.state_dir", problem, expected) from error
    return made


def _leave_marks(state_dir: Path, machines: list[str]) -> None:
    """The machines are out of service from now on. A disk that takes no mark keeps none from being made safe."""
    for machine in machines:
        try:
            leave_mark(state_dir, machine, f"user:{getpass.getuser()}")
        except OSError as error:
            text.complain(f"nothing tells the next daemon that {machine} is out of service: {error}")


def _leave_notes(state_dir: Path, made: list[Made]) -> None:
    """What happened is not lost. A note that cannot be left does not hide what was done."""
    runs: dict[str, Any] = {}
    try:
        with views.open_readonly(state_dir) as snapshot:
            runs = {run["machine"]: run for run in snapshot.open_runs()}
    except NoJournalError:
        pass
    except EdgeError as error:
        text.complain(str(error))
    for one in made:
        if not (one.confirmed or one.problem):
            continue
        try:
            leave_note(state_dir, one, f"user:{getpass.getuser()}", runs.get(one.machine))
        except OSError as error:
            text.complain(f"no note about {one.machine} for the next daemon: {error}")
