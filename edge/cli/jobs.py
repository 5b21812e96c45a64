"""`edge jobs`, `edge why` and `edge job submit|show|cancel`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.cli.status import job_lines
from edge.errors import NotRunningError, UsageError
from edge.sitefile import SiteFile
from edge.status import ATTENTION, FINE, UNSAFE
from edge.views import Snapshot, open_readonly

SHORTEST_ID = 4


def jobs(args: argparse.Namespace) -> int:
    """Print the open jobs, or all."""
    file = sitefile.read(sitefile.find(args.config))
    try:
        found = call(file.socket, "GET", "/v1/jobs?all" if args.all else "/v1/jobs")
    except NotRunningError:
        with open_readonly(file.state_dir) as snapshot:
            found = [{**job, "waits": []} for job in snapshot.jobs(args.all)]
    if args.json:
        text.print_json(found)
    else:
        print("\n".join(job_lines(found)))
    return FINE


def why(args: argparse.Namespace) -> int:
    """Print why a job waits: the first reason first, each with the command that clears it."""
    file = sitefile.read(sitefile.find(args.config))
    found = _job(file, args.job)
    if args.json:
        text.print_json({"job_id": found["job_id"], "state": found["state"], "waits": found["waits"]})
        return FINE
    print(f"job {found['job_id']} is {found['state']}")
    print("\n".join(_reasons(found)))
    return FINE


def _reasons(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for step in found["steps"]:
        if step["state"] == "RUNNING":
            asked = f", asked to {step['requested']}" if step["requested"] != "none" else ""
            lines.append(f"  step {step['step']} runs on {step['machine']}{asked}")
        elif step["reason"]:
            lines += text.wrap(f"step {step['step']} is {step['state']}: {step['reason']}", "  ")
    for index, wait in enumerate(found["waits"]):
        lines += text.wrap(f"{'first: ' if index == 0 else 'then:  '}{wait['text']}", "  ")
        if wait["command"]:
            lines.append(f"         {wait['command']}")
    return lines or ["  it waits for nothing"]


def submit(args: argparse.Namespace) -> int:
    """Hand a bundle to the daemon and print its verdict: 0 accepted, 2 refused."""
    file = sitefile.read(sitefile.find(args.config))
    try:
        with args.file.open("rb") as bundle:
            receipt = call(file.socket, "POST", "/v1/jobs", bundle)
    except OSError as error:
        raise UsageError(f"{args.file}: {error.strerror}") from error
    if args.json:
        text.print_json(receipt)
    else:
        print("\n".join(receipt_lines(args.file, receipt)))
    if not receipt["accepted"]:
        return UNSAFE
    return ATTENTION if receipt["files"]["missing"] or receipt["files"]["refused"] else FINE


def receipt_lines(file: Path, receipt: Mapping[str, Any]) -> list[str]:
    """What became of a bundle, in words."""
    again = " (as before: the same bytes get the same answer, and nothing is done)" if receipt["repeated"] else ""
    if not receipt["accepted"]:
        return text.wrap(f"{file.name} is refused, {receipt['reason']}: {receipt['detail']}{again}", "")
    lines = text.wrap(f"job {receipt['job_id']} is accepted{again}", "")
    for sha256 in receipt["files"]["missing"]:
        lines += text.wrap(f"! the file {sha256[:12]}… is not in the bundle: the job waits for it", "  ")
    for reason in receipt["files"]["refused"].values():
        lines += text.wrap(f"! {reason}", "  ")
    return lines


def show(args: argparse.Namespace) -> int:
    """Print all that is known of a job."""
    file = sitefile.read(sitefile.find(args.config))
    found = _job(file, args.job)
    if args.json:
        text.print_json(found)
        return FINE
    signers = ", ".join(found["signers"])
    print(f"job {found['job_id']}: {found['state']}")
    print(f"  product    {found['product']}" + (f"   reference {found['reference']}" if found["reference"] else ""))
    print(f"  issued by  {found['issuer']}   signed by {signers}   accepted {text.clock_time(found['accepted_at'])}")
    print(f"  envelope   sha256 {found['digest']}")
    for artifact in found["artifacts"]:
        here = "here" if artifact["stored"] else "not here"
        print(f"  file       {artifact['name']} ({here})  sha256 {artifact['sha256'][:16]}…")
    rows = [
        [f"{run['step']} #{run['attempt']}", run["machine"], run["outcome"] or "running", run["reason"] or ""]
        for run in found["runs"]
    ]
    if rows:
        print("\n".join(text.table(["RUN", "MACHINE", "OUTCOME", "REASON"], rows)))
    print("\n".join(_reasons(found)))
    for event in found["events"]:
        print(f"  {event['seq']:>6}  {text.clock_time(event['at_wall'])}  {event['kind']}  by {event['actor']}")
    return FINE


def cancel(args: argparse.Namespace) -> int:
    """Ask for the end of a job."""
    file = sitefile.read(sitefile.find(args.config))
    job_id = _job(file, args.job)["job_id"]
    found = call(file.socket, "POST", f"/v1/jobs/{quote(job_id)}/cancel", {"reason": args.reason})
    if args.json:
        text.print_json(found)
    elif found["state"] == "RUNNING":
        print(f"job {job_id} is being stopped; `edge why {job_id}` tells when the machine has confirmed it")
    else:
        print(f"job {job_id} is {found['state']}")
    return FINE


def _job(file: SiteFile, wanted: str) -> dict[str, Any]:
    """The job whose id is, begins or ends with `wanted`. Raises `UsageError`."""
    with open_readonly(file.state_dir) as snapshot:
        job_id = _full_id(snapshot, wanted)
        stored = snapshot.job(job_id)
    assert stored is not None
    try:
        live: dict[str, Any] = call(file.socket, "GET", f"/v1/jobs/{quote(job_id)}")
    except NotRunningError:
        return {**stored, "waits": []}
    return live


def _full_id(snapshot: Snapshot, wanted: str) -> str:
    ids = [job["job_id"] for job in snapshot.jobs(all=True)]
    if wanted in ids:
        return wanted
    upper = wanted.upper()
    if len(upper) < SHORTEST_ID:
        raise UsageError(f"{wanted!r} is too short for a job's id; give at least {SHORTEST_ID} characters")
    found = [job_id for job_id in ids if job_id.startswith(upper) or job_id.endswith(upper)]
    if len(found) != 1:
        problem = "no job's id begins or ends with" if not found else f"{len(found)} jobs' ids begin or end with"
        raise UsageError(f"{problem} {wanted!r}; `edge jobs --all` lists them")
    return str(found[0])
