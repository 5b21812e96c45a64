"""`edge job hold|release|decline|good|scrap|retry`: what a person decides about a job that goes on or is held."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.cli.jobs import job_of, step_lines
from edge.journal.rows import held_in_words
from edge.reading.status import ATTENTION, FINE

ANSWER_S = 20
"""How long the machines' answers are waited for; a printer first finishes the moves in its queue."""


def hold(args: argparse.Namespace) -> int:
    """Let nothing of a job start, and pause what runs: 0 held, 1 a machine does not confirm it."""
    before, found = _steered(args, "hold")
    who = held_in_words(found["held"])
    already = " already" if before["revision"] == found["revision"] else ""
    return _told(args, found, f"job {found['job_id']} is {who.replace('held', f'held{already}', 1)}")


def release(args: argparse.Namespace) -> int:
    """Let a held job go on, and answer a machine that waits for somebody: 0 released, 1 a machine does not confirm."""
    before, found = _steered(args, "release")
    same = before["revision"] == found["revision"]
    said = _nothing_to_release(found) if same else "is released"
    return _told(args, found, f"job {found['job_id']} {said}")


def _nothing_to_release(found: Mapping[str, Any]) -> str:
    if any(step["state"] == "HELD" for step in found["steps"]):
        return "has a run that has ended, and nothing that goes on by a release"
    return "is not held, and nothing of it waits for a release"


def decline(args: argparse.Namespace) -> int:
    """Say that a job never started here and never will."""
    before, found = _steered(args, "decline")
    already = " already" if before["revision"] == found["revision"] else ""
    return _told(args, found, f"job {found['job_id']} is declined{already}: it never started here, and never will")


def resolve(args: argparse.Namespace) -> int:
    """Say what is to become of a step whose run ended in doubt or failed."""
    file = sitefile.read(sitefile.find(args.config))
    job_id = job_of(file, args.job)["job_id"]
    body = {"resolution": args.resolution, "part": args.part, "step": args.step, "reason": args.reason}
    found = call(file.socket, "POST", f"/v1/jobs/{quote(job_id)}/resolve", body)
    return _told(args, found, f"job {job_id} is {found['state']}")


def _steered(args: argparse.Namespace, verb: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The job before and after."""
    file = sitefile.read(sitefile.find(args.config))
    before = job_of(file, args.job)
    target = f"/v1/jobs/{quote(before['job_id'])}/{verb}?wait={ANSWER_S}"
    return before, call(file.socket, "POST", target, {"reason": args.reason})


def _told(args: argparse.Namespace, found: Mapping[str, Any], said: str) -> int:
    if args.json:
        text.print_json(found)
    else:
        print("\n".join([*text.wrap(said, ""), *step_lines(found)]))
    return ATTENTION if any(step["request_failure"] for step in found["steps"]) else FINE
