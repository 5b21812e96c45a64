"""`edge status` and `edge machines`: from the daemon, or from its journal when it is dead.

Fast: imports neither pydantic nor asyncio.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge import sitefile
from edge.cli import text
from edge.cli.client import as_now, call
from edge.errors import NoJournalError, NotRunningError
from edge.jobstate import JobState
from edge.journal import worktime
from edge.journal.rows import held_in_words
from edge.model.machine import Value
from edge.model.machine import in_words as value_in_words
from edge.reading.beginning import in_words
from edge.reading.status import ATTENTION, FINE, NO_DAEMON, UNSAFE, document, without_journal
from edge.reading.views import open_readonly
from edge.sitefile import SiteFile

WATCH_S = 2.0

STAGES = "stages"
"""The unit of a machine that says no more than that a run has begun (`edge.driver.STAGES`)."""

_CLEAR_SCREEN = "\033[H\033[2J"

_LEVELS = {FINE: ("all is well", "green"), ATTENTION: ("needs attention", "yellow"), UNSAFE: ("UNSAFE", "red")}


def status(args: argparse.Namespace) -> int:
    """Print the whole screen; its level is the exit code."""
    file = sitefile.read(sitefile.find(args.config))
    while True:
        found = fetch(file)
        if args.json:
            text.print_json(found)
        else:
            lines = screen(found)
            print((_CLEAR_SCREEN if args.watch and sys.stdout.isatty() else "") + "\n".join(lines), flush=True)
        if not args.watch:
            return int(found["level"])
        time.sleep(WATCH_S)


def machines(args: argparse.Namespace) -> int:
    """Print the machines alone."""
    found = fetch(sitefile.read(sitefile.find(args.config)))
    if args.json:
        text.print_json(found["machines"])
    else:
        print("\n".join(machine_lines(found["machines"], properties=True)))
    return FINE if found["daemon"] else ATTENTION


def fetch(file: SiteFile) -> dict[str, Any]:
    """The document of `edge.reading.status`: from the daemon, or from the journal if there is none to ask."""
    try:
        answer: dict[str, Any] = call(file.socket, "GET", "/v1/status")
        answer["machines"] = [as_now(machine) for machine in answer["machines"]]
    except NotRunningError as reason:
        try:
            with open_readonly(file.state_dir) as snapshot:
                waits = {job["job_id"]: [NO_DAEMON] for job in snapshot.jobs() if job["state"] == "ALLOWED_TO_START"}
                answer = document(snapshot, configured(file), None, {}, waits)
        except NoJournalError:
            answer = without_journal(file.site, configured(file))
        answer["daemon_missing"] = str(reason)
    return answer


def configured(file: SiteFile) -> list[dict[str, Any]]:
    """The machines of site.toml, as far as they can be read without their drivers."""
    tables = file.tables.get("machines", [])
    found = [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
    return [
        {
            "id": str(t.get("id", "?")),
            "driver": str(t.get("driver", "?")),
            "processes": t.get("processes", []),
            "properties": _properties(t.get("properties")),
        }
        for t in found
    ]


def _properties(table: object) -> dict[str, Value]:
    found = table if isinstance(table, dict) else {}
    return {str(name): value for name, value in found.items() if isinstance(value, str | int | float | bool)}


def screen(found: Mapping[str, Any]) -> list[str]:
    """What `edge status` shows: what needs a hand first."""
    words, tone = _LEVELS[found["level"]]
    event = found["last_event"]
    where = f"event {event['seq']}, {text.since(event['at_wall'])} ago" if event else "no event yet"
    lines = [f"{text.colour(found['site'], 'bold')}: {text.colour(words, tone)}   ({where})"]
    if found["daemon"] is None:
        source = "; this is what its journal says" if found["journal"] else ""
        lines += text.wrap(f"{found['daemon_missing']}{source}.", "")
    lines += _uplink_lines(found["uplink"])
    lines += text.wrap(f"journal: {in_words(found['pruned'])}", "", "  ") if found["pruned"] else []
    if found["attention"]:
        lines += ["", text.colour("NEEDS A HAND", "bold")]
        for item in found["attention"]:
            lines += text.wrap(f"! {item['text']}", "  ", "    ")
            if item["command"]:
                lines.append(f"      {item['command']}")
    lines += ["", text.colour("MACHINES", "bold"), *machine_lines(found["machines"])]
    lines += ["", text.colour("JOBS", "bold"), *job_lines(found["jobs"], found["machines"])]
    counts = ", ".join(f"{count} {state.lower()}" for state, count in found["job_counts"].items() if count)
    lines += [f"  in all: {counts}"] if counts else []
    for notice in found["notices"]:
        lines += text.wrap(f"note: {notice['text']}", "  ", "    ")
    return lines


def _uplink_lines(uplink: Mapping[str, Any] | None) -> list[str]:
    """A line on the connection to the centre, if the site is to have one."""
    if uplink is None:
        return []
    is_there = f"connected to {uplink['where']}" if uplink["online"] else f"no connection to {uplink['where']}"
    reporting = uplink["reporting"]
    backlog = "" if reporting is None else f"; {reporting['backlog']} events not acknowledged"
    lines = text.wrap(f"centre: {is_there} for {text.since(uplink['since'])}{backlog}", "", "  ")
    if uplink["text"] and uplink["text"] not in uplink["attention"]:  # it may pass by itself
        lines += text.wrap(uplink["text"], "  ")
    return lines


def machine_lines(machines: Sequence[Mapping[str, Any]], *, properties: bool = False) -> list[str]:
    """A line each: state, job, progress, temperatures, faults of the link, age of the oldest of it.

    Below it what somebody has loaded; all that counts, with `properties`.
    """
    if not machines:
        return ["  none configured"]
    rows = []
    for machine in machines:
        progress, link = machine["progress"], machine["link"]
        heat = [f"{name} {seen['actual_degc']:.0f}/{seen['target_degc']:.0f}" for name, seen in _heaters(machine)]
        ages = [seen["age_s"] for _, seen in _heaters(machine)]
        ages += [seen["age_s"] for seen in machine.get("readings", {}).values()]
        rows.append(
            [
                machine["id"],
                machine["state"]
                + ("*" if machine["needs_clearing"] and not machine["run"] else "")
                + ("!" if machine["maintenance"] else "")
                + ("+" if machine["run"] and machine["run"]["overrun"] else ""),
                done(progress),
                "  ".join(heat) or "-",
                str(link["resends"] + link["time_outs"]) if link else "-",
                text.age(max(ages)) if ages else "-",
                f"…{machine['run']['job_id'][-text.ID_TAIL :]}" if machine["run"] else "-",
            ]
        )
    header, *shown = text.table(["MACHINE", "STATE", "DONE", "TEMP degC", "LINK ERR", "AGE", "JOB"], rows)
    lines = [header]
    for machine, line in zip(machines, shown, strict=True):
        lines.append(line)
        if words := property_words(machine["properties"], everything=properties):
            lines += text.wrap(words, "    ", "      ")
    if any(machine["needs_clearing"] and not machine["run"] for machine in machines):
        lines.append("  * the last part is still on it")
    if any(machine["maintenance"] for machine in machines):
        lines.append("  ! out of service: it takes no work")
    if any(machine["run"] and machine["run"]["overrun"] for machine in machines):
        lines.append("  + its run has been at work for longer than its limit")
    return lines


def property_words(properties: Mapping[str, Mapping[str, Any]], *, everything: bool) -> str:
    """``material PETG (loaded by ada), nozzle_mm 0.4``; without `everything` only what was loaded."""
    told = []
    for name, one in properties.items():
        by = f" (loaded by {one['loaded']['by'].removeprefix('user:')})" if one["loaded"] else ""
        if by or everything:
            told.append(f"{name} {value_in_words(one['value'])}{by}")
    return ", ".join(told)


def done(progress: Mapping[str, Any] | None) -> str:
    """The share that is done; a machine that says only where it stands has none."""
    if not progress:
        return "-"
    if progress["unit"] == STAGES:
        return "begun" if progress["done"] < progress["total"] else "ended"
    return f"{100 * progress['done'] / progress['total']:.0f} %"


def _heaters(machine: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return sorted(machine["temperatures"].items(), reverse=True)


def job_lines(jobs: Sequence[Mapping[str, Any]], machines: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """A line each, and below it where it runs or why it waits."""
    if not jobs:
        return ["  none open"]
    running = {machine["run"]["job_id"]: machine for machine in machines if machine["run"]}
    rows = [[job["job_id"], job["state"], text.clip(job["product"], 28)] for job in jobs]
    header, *lines = text.table(["JOB", "STATE", "PRODUCT"], rows)
    shown = [header]
    for job, line in zip(jobs, lines, strict=True):
        shown.append(line)
        if job["job_id"] in running:
            shown += text.wrap(_where(running[job["job_id"]]), "    ", "      ")
        if job["held"] and not JobState(job["state"]).ended:
            shown += text.wrap(held_in_words(job["held"]), "    ", "      ")
        elif job["job_id"] not in running and job["waits"]:
            shown += text.wrap(f"waits: {job['waits'][0]['text']}", "    ", "      ")
    return shown


def _where(machine: Mapping[str, Any]) -> str:
    overrun = machine["run"]["overrun"]
    return f"on {machine['id']}" + (f": it {worktime.in_words(overrun)}" if overrun else "")
