"""`edge jobs`, `edge why` and `edge job submit|show|cancel`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge import sitefile
from edge.cli import client, text
from edge.cli.client import call
from edge.cli.events import line as event_line
from edge.cli.status import job_lines
from edge.errors import NoJournalError, NotRunningError, RefusedError, UsageError
from edge.jobstate import JobState
from edge.journal.rows import held_in_words
from edge.reading.beginning import forgotten
from edge.reading.status import ATTENTION, FINE, NO_DAEMON, UNSAFE
from edge.reading.views import Snapshot, open_readonly, with_waits
from edge.sitefile import SiteFile

SHORTEST_ID = 4


def jobs(args: argparse.Namespace) -> int:
    """Print the open jobs, or all."""
    file = sitefile.read(sitefile.find(args.config))
    machines: list[dict[str, Any]] = []
    try:
        found = call(file.socket, "GET", "/v1/jobs?all" if args.all else "/v1/jobs")
        if not args.json:
            machines = client.machines(file.socket)
    except NotRunningError:
        found = _recorded_jobs(file, all=args.all)
    if args.json:
        text.print_json(found)
    else:
        print("\n".join(job_lines(found, machines)))
    return FINE


def _recorded_jobs(file: SiteFile, *, all: bool) -> list[dict[str, Any]]:
    """As the journal has them, with the daemon dead."""
    try:
        with open_readonly(file.state_dir) as snapshot:
            return [_without_daemon(job) for job in snapshot.jobs(all)]
    except NoJournalError:
        return []


def _without_daemon(job: dict[str, Any]) -> dict[str, Any]:
    """Nothing of an open job goes on, or is seen to go on."""
    return with_waits(job, [] if JobState(job["state"]).ended else [NO_DAEMON])


def why(args: argparse.Namespace) -> int:
    """Print why a job waits: the first reason first, each with the command that clears it."""
    file = sitefile.read(sitefile.find(args.config))
    found = job_of(file, args.job)
    if args.json:
        text.print_json({key: found[key] for key in ("job_id", "state", "held", "waits")})
        return FINE
    print(f"job {found['job_id']} is {found['state']}")
    print("\n".join(reasons(found)))
    return FINE


def reasons(found: Mapping[str, Any]) -> list[str]:
    """Why a job stands where it stands, and the commands that move it."""
    lines = []
    waits = found["waits"]
    if found["held"] and not JobState(found["state"]).ended and not any(w["code"] == "held" for w in waits):
        lines += text.wrap(f"it is {held_in_words(found['held'])}; to let it go on:", "  ", "    ")
        lines.append(f"      edge job release {found['job_id']}")
    lines += step_lines(found)
    for index, wait in enumerate(waits):
        lines += text.wrap(f"{'first: ' if index == 0 else 'then:  '}{wait['text']}", "  ", " " * 9)
        if wait["command"]:
            lines.append(f"         {wait['command']}")
    if found["parked"] and not waits:
        lines.append(f"  it was {found['parked']['reason']} before it was judged; `edge job show` says by whom")
    elif not lines:
        new = "  nothing is known that keeps it; the site looks again within seconds"
        lines.append(new if found["state"] == "ALLOWED_TO_START" else "  it has ended")
    return lines


def step_lines(found: Mapping[str, Any]) -> list[str]:
    """How each step stands, as far as there is something to say."""
    return [line for step in found["steps"] for line in _of_step(found, step)]


def _of_step(found: Mapping[str, Any], step: Mapping[str, Any]) -> list[str]:
    job_id, state = found["job_id"], step["state"]
    name = f"step {step['step']}" + (f" of part {step['part']}" if found["quantity"] > 1 else "")
    asked = f", asked to {step['requested']}" if step["requested"] != "none" else ""
    lines: list[str] = []
    if state == "RUNNING":
        unseen = any(wait["code"] == NO_DAEMON["code"] for wait in found["waits"])
        runs = f"ran on {step['machine']} when the daemon ended" if unseen else f"runs on {step['machine']}"
        lines.append(f"  {name} {runs}{asked}")
    elif state == "SUSPENDED":
        says = f"it says: {step['reason'] or 'nothing'}" if step["suspended_by"] == "machine" else step["reason"]
        since = text.clock_time(step["since"])
        lines += text.wrap(f"{name} is suspended on {step['machine']} since {since}{asked}; {says}", "  ", "    ")
        if not found["held"]:
            lines += ["    when that is done:", f"      edge job release {job_id}"]
    elif step["reason"]:
        lines += text.wrap(f"{name} is {state}: {step['reason']}", "  ", "    ")
    if step["request_failure"]:
        lines += text.wrap(f"! {step['request_failure']}", "    ", "      ")
    if state == "HELD":
        several = sum(other["state"] == "HELD" for other in found["steps"]) > 1
        which = f"{job_id} --part {step['part']} --step {step['step']}" if several else job_id
        left = step["max_attempts"] - step["attempt"]
        lines.append("    a person decides: the part is good, it is scrap, or all is ended")
        lines += [f"      edge job good {which}", f"      edge job scrap {which}", f"      edge job cancel {job_id}"]
        if left > 0:
            lines += [f"    or the step is tried once more (attempts left: {left})", f"      edge job retry {which}"]
    return lines


def submit(args: argparse.Namespace) -> int:
    """Hand a bundle to the daemon and print its verdict: 0 accepted, 1 something is missing, 2 refused."""
    file = sitefile.read(sitefile.find(args.config))
    try:
        with args.file.open("rb") as bundle:
            receipt = call(file.socket, "POST", "/v1/jobs", bundle)
    except RefusedError as error:
        raise RefusedError(f"{args.file}: {error}") from error
    except OSError as error:
        raise UsageError(f"{args.file}: {error.strerror}") from error
    if args.json:
        text.print_json(receipt)
    else:
        print("\n".join(receipt_lines(args.file, receipt)))
    return receipt_level(receipt)


def receipt_level(receipt: Mapping[str, Any]) -> int:
    """How well it went; an order that waits for the time is neither accepted nor refused."""
    if not receipt["accepted"]:
        return ATTENTION if receipt["reason"] == "clock_untrusted" else UNSAFE
    return ATTENTION if receipt["files"]["missing"] or receipt["files"]["refused"] else FINE


def receipt_lines(file: Path, receipt: Mapping[str, Any]) -> list[str]:
    """What became of a bundle, in words."""
    again = " (as before: the same bytes get the same answer, and nothing is done)" if receipt["repeated"] else ""
    if receipt["reason"] == "clock_untrusted":
        return text.wrap(f"{file.name} cannot be judged yet: {receipt['detail']}", "") + _file_lines(receipt)
    if not receipt["accepted"]:
        return text.wrap(f"{file.name} is refused, {receipt['reason']}: {receipt['detail']}{again}", "")
    return text.wrap(f"job {receipt['job_id']} is accepted{again}", "") + _file_lines(receipt)


def _file_lines(receipt: Mapping[str, Any]) -> list[str]:
    lines = []
    for sha256 in receipt["files"]["missing"]:
        lines += text.wrap(f"! the file {sha256[:12]}… is not in the bundle: the job waits for it", "  ")
    for reason in receipt["files"]["refused"].values():
        lines += text.wrap(f"! {reason}", "  ")
    return lines


def show(args: argparse.Namespace) -> int:
    """Print all that is known of a job."""
    file = sitefile.read(sitefile.find(args.config))
    found = job_of(file, args.job)
    if args.json:
        text.print_json(found)
        return FINE
    print("\n".join(job_page(found)))
    return FINE


def job_page(found: Mapping[str, Any]) -> list[str]:
    """All that is known of a job, for a terminal."""
    facts = [
        ("product", found["product"]),
        ("reference", found["reference"]),
        ("issued by", f"{found['issuer']}, signed by {', '.join(found['signers'])}"),
        ("accepted", text.clock_time(found["accepted_at"])) if found["accepted_at"] else ("accepted", "never"),
        ("here since", text.clock_time(found["parked"]["since"]) if found["parked"] else ""),
        ("digest", found["digest"]),
        *(
            ("file", f"{a['name']}, {'here' if a['stored'] else 'NOT HERE'}, sha256 {a['sha256'][:16]}…")
            for a in found["artifacts"]
        ),
    ]
    lines = [f"job {found['job_id']}: {found['state']}"]
    for label, value in facts:
        lines += text.wrap(value, f"  {label:<10} ", " " * 13) if value else []
    lines += ["", text.colour("NOW", "bold"), *reasons(found)]
    if found["runs"]:
        rows = [[f"{r['step']} #{r['attempt']}", r["machine"], r["outcome"] or "running"] for r in found["runs"]]
        header, *shown = text.table(["RUN", "MACHINE", "OUTCOME"], rows)
        lines += ["", text.colour("RUNS", "bold"), header]
        for run, line in zip(found["runs"], shown, strict=True):
            lines += [line, *(text.wrap(run["reason"], "    ") if run["reason"] else [])]
    lines += ["", text.colour("EVENTS", "bold"), *(event_line(event, job=False) for event in found["events"])]
    return lines


def cancel(args: argparse.Namespace) -> int:
    """Ask for the end of a job."""
    file = sitefile.read(sitefile.find(args.config))
    before = job_of(file, args.job)
    job_id = before["job_id"]
    found = call(file.socket, "POST", f"/v1/jobs/{quote(job_id)}/cancel", {"reason": args.reason})
    if args.json:
        text.print_json(found)
    elif JobState(before["state"]).ended:
        print("\n".join(text.wrap(f"job {job_id} had ended already: {found['state']}; nothing is cancelled", "")))
    elif any(step["requested"] == "stop" for step in found["steps"]):
        print(f"job {job_id} is being stopped; how it goes:\n  edge why {job_id}")
    else:
        print(f"job {job_id} is {found['state']}")
    return FINE


def job_of(file: SiteFile, wanted: str) -> dict[str, Any]:
    """The job whose id is, begins or ends with `wanted`. Raises `UsageError`."""
    with open_readonly(file.state_dir) as snapshot:
        job_id = _full_id(snapshot, wanted)
        stored = snapshot.job(job_id)
    assert stored is not None
    try:
        live: dict[str, Any] = call(file.socket, "GET", f"/v1/jobs/{quote(job_id)}")
    except NotRunningError:
        return _without_daemon(stored)
    return live


def _full_id(snapshot: Snapshot, wanted: str) -> str:
    ids = [job["job_id"] for job in snapshot.jobs(all=True)]
    if wanted in ids:
        return wanted
    upper = wanted.upper().removeprefix("…")  # as `edge status` and `edge events` shorten it
    if len(upper) < SHORTEST_ID:
        raise UsageError(f"{wanted!r} is too short for a job's id; give at least {SHORTEST_ID} characters")
    found = [job_id for job_id in ids if job_id.startswith(upper) or job_id.endswith(upper)]
    if not found and (gone := forgotten(snapshot.connection, upper)):
        raise UsageError(gone)
    if len(found) != 1:
        problem = "no job's id begins or ends with" if not found else f"{len(found)} jobs' ids begin or end with"
        raise UsageError(f"{problem} {wanted!r}; `edge jobs --all` lists them")
    return str(found[0])
