"""`edge machine show` and `acknowledge`: all that is seen of a machine, and what somebody is to take note of."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from edge import sitefile
from edge.cli import text
from edge.cli.client import call, machines, named
from edge.cli.status import STAGES, done, property_words
from edge.errors import UsageError
from edge.journal import worktime
from edge.journal.maintenance import Maintenance, back_command
from edge.reading.status import ATTENTION, FINE


def show(args: argparse.Namespace) -> int:
    """Print all that the daemon sees of a machine: 1 if it takes no work or somebody is to take note of something."""
    machine = _machine(args)
    if args.json:
        text.print_json(machine)
    else:
        print("\n".join(machine_page(machine)))
    waits = _noticeable(machine) or machine["maintenance"] or (machine["needs_clearing"] and not machine["run"])
    return ATTENTION if waits or machine["state"] not in ("IDLE", "EXECUTE") else FINE


def acknowledge(args: argparse.Namespace) -> int:
    """Say that conditions have been taken note of. Names each occurrence, so that it can never be another one."""
    machine = _machine(args)
    file = sitefile.read(sitefile.find(args.config))
    for token in [args.condition] if args.condition else meant(machine):
        body = {"token": token, "reason": args.comment}
        answer = call(file.socket, "POST", f"/v1/machines/{quote(args.machine)}/acknowledge", body)
        if args.json:
            text.print_json(answer)
            continue
        said = f"{args.machine}: {answer['acknowledged']['text']} is acknowledged; the journal names {answer['actor']}"
        print("\n".join(text.wrap(said, "")))
    return FINE


def _machine(args: argparse.Namespace) -> Mapping[str, Any]:
    return named(machines(sitefile.read(sitefile.find(args.config)).socket), args.machine)


def _noticeable(machine: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [condition for condition in machine["conditions"] if not condition["acknowledged"]]


def meant(machine: Mapping[str, Any]) -> list[str]:
    """What somebody in front of the machine means who names none: the only one, or all that are over.

    A stop is often told twice, by the machine's own alarm for it, too. Safety stops are last: what they keep from
    starting waits until all is acknowledged.
    """
    found = _noticeable(machine)
    if not found:
        raise UsageError(f"{machine['id']} has nothing that is to be acknowledged")
    over = found if len(found) == 1 else [one for one in found if not one["active"] and not one["alone"]]
    if not over:
        names = "; ".join(f"{one['token']} ({one['text']}{_why_not(one)})" for one in found)
        raise UsageError(f"{machine['id']} has several conditions, and none is over; name one: {names}")
    return [str(one["token"]) for one in reversed(over)]


def _why_not(condition: Mapping[str, Any]) -> str:
    return f"; {condition['refused']}" if condition["refused"] else ""


def machine_page(machine: Mapping[str, Any]) -> list[str]:
    """All that is seen of a machine, for a terminal."""
    state = f"{machine['id']}: {machine['state']}" + (f", {machine['detail']}" if machine["detail"] else "")
    lines = text.wrap(state, "", "  ")
    who = machine["identity"]
    if who:
        told = [who[name] for name in ("firmware", "version", "name", "serial") if who[name]]
        profile = f"; profile {who['profile']}" if who["profile"] else ""
        lines += text.wrap(f"it is: {' '.join(told)}{profile}", "  ", "    ")
    counts = property_words(machine["properties"], everything=True)
    lines += text.wrap(f"in it: {counts}", "  ", "    ") if counts else []
    lines += _work(machine)
    lines += _service(machine)
    if machine["message"]:
        lines += text.wrap(f"it said: {machine['message']['text']}", "  ", "    ")
    seen_rows = [
        (name, f"{seen['value']:g} {seen['unit']}".rstrip(), seen["age_s"])
        for name, seen in machine["readings"].items()
    ]
    seen_rows += [
        (name, f"{seen['actual_degc']:.0f} degC" + _target(seen), seen["age_s"])
        for name, seen in machine["temperatures"].items()
    ]
    lines += [text.clip(f"  {name}: {value} ({age_s:.0f} s ago)", text.WIDTH) for name, value, age_s in seen_rows]
    if not machine["conditions"]:
        return [*lines, "  no open conditions"]
    for condition in machine["conditions"]:
        cause = "its cause is there" if condition["active"] else "its cause is gone"
        noted = "acknowledged" if condition["acknowledged"] else "NOT ACKNOWLEDGED"
        about = f"{noted}; {cause}; severity {condition['severity']}{_why_not(condition)}"
        said = f"{condition['token']}: {condition['text']} ({about})"
        lines += text.wrap(said, "  ", "    ")
    return lines


def _target(seen: Mapping[str, Any]) -> str:
    return f", to be {seen['target_degc']:.0f}" if seen["target_degc"] else ", off"


def _work(machine: Mapping[str, Any]) -> list[str]:
    """The run that is open, and how far it is."""
    progress, run, lines = machine["progress"], machine["run"], []
    if run:
        lines.append(f"  job: {run['job_id']}")
        lines += text.wrap(f"it {worktime.in_words(run['overrun'])}", "    ", "      ") if run["overrun"] else []
    if progress:
        counts = f" ({progress['done']} of {progress['total']} {progress['unit']})"
        lines.append(f"  done: {done(progress)}" + ("" if progress["unit"] == STAGES else counts))
    if link := machine["link"]:
        lines.append(f"  link: {link['resends']} resends, {link['time_outs']} time-outs")
    return lines


def _service(machine: Mapping[str, Any]) -> list[str]:
    """What keeps it from the next job, each with the command that ends it."""
    lines = []
    if out := machine["maintenance"]:
        words = Maintenance(out["by"], out["since"], out["reason"], made_safe=False).in_words
        lines += [*text.wrap(words, "  ", "    "), f"      {back_command(machine['id'])}"]
    if machine["needs_clearing"] and not machine["run"]:
        lines += ["  needs clearing: the last part is still on it", f"      edge machine clear {machine['id']}"]
    return lines
