"""The arguments of the commands about a site; imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.cli.args import Commands, command

JOB = "its id, or at least four characters of its beginning or end"


def add_site_commands(commands: Commands) -> None:
    """`demo`, `init`, `check`, `run`, `restart`, `make-safe`, `status`, `machines`, `jobs`, `why` and `events`."""
    demo = command(commands, "demo", "the whole story in one terminal, with a simulated printer", _demo, answers=False)
    demo.add_argument("--keep", action="store_true", help="leave the demo's folder where it is")

    init = command(commands, "init", "write a site.toml to begin with", _init)
    init.add_argument("dir", type=Path, metavar="DIR")
    init.add_argument("--site", default="site-1", metavar="ID", help="the site's id (default: site-1)")
    command(commands, "check", "whether the site's configuration is right, without opening a machine", _check)
    run = command(commands, "run", "serve the site until SIGTERM", _run, answers=False)
    run.add_argument("--verbose", action="store_true", help="log what is of use to a developer")

    summary = 'begin the daemon anew; a job whose order says on_restart = "resume" goes on where it stood'
    restart = command(commands, "restart", summary, _restart)
    restart.add_argument("--force", action="store_true", help="even if a job is running that will be stopped by it")

    summary = "stop machines and switch them off, with the daemon or without it; this is no emergency stop"
    safe = command(commands, "make-safe", summary, _make_safe)
    safe.add_argument("machines", nargs="*", metavar="MACHINE", help="(default: all)")
    within = "how long a machine may take to confirm, at most 120 (default: 60)"
    safe.add_argument("--within", type=float, default=60.0, metavar="SECONDS", help=within)

    status = command(commands, "status", "what needs a hand, the machines and the open jobs", _status)
    status.add_argument("--watch", action="store_true", help="again and again, until Ctrl-C")
    command(commands, "machines", "the machines", _machines)
    jobs = command(commands, "jobs", "the open jobs", _jobs)
    jobs.add_argument("--all", action="store_true", help="also those that have ended")
    why = command(commands, "why", "why a job waits, and what clears it", _why)
    why.add_argument("job", metavar="JOB", help=JOB)
    events = command(commands, "events", "what happened, oldest first", _events)
    events.add_argument("-f", "--follow", action="store_true", help="go on with what happens, until Ctrl-C")
    events.add_argument("-n", "--last", type=int, default=20, metavar="N", help="begin with the last N (default: 20)")
    events.add_argument("--machine", metavar="ID", help="of one machine only")


def add_job_commands(job_commands: Commands) -> None:
    """`job submit`, `job import`, `job show`, `job cancel`, and those of `_add_steering_commands`."""
    submit = command(job_commands, "submit", "hand a signed order to the site", _job_submit)
    submit.add_argument("file", type=Path, metavar="FILE", help="a bundle (.mfjob), or the envelope alone (.dsse.json)")
    stick = command(job_commands, "import", "hand all signed orders on a stick to the site", _job_import)
    stick.add_argument("dir", type=Path, metavar="DIR", help="where the stick is mounted, or a folder on it")
    show = command(job_commands, "show", "all that is known of a job", _job_show)
    show.add_argument("job", metavar="JOB", help=JOB)
    cancel = command(job_commands, "cancel", "end a job; a running machine is stopped", _job_cancel)
    cancel.add_argument("job", metavar="JOB", help=JOB)
    cancel.add_argument("--reason", default="", metavar="TEXT", help="recorded with your name")
    summary = "say that a job never started here and never will, so that another site may take it"
    decline = command(job_commands, "decline", summary, _job_decline)
    decline.add_argument("job", metavar="JOB", help=JOB)
    decline.add_argument("--reason", default="", metavar="TEXT", help="recorded with your name")
    _add_steering_commands(job_commands)


def _add_steering_commands(job_commands: Commands) -> None:
    """`job hold`, `job release`, `job good`, `job scrap` and `job retry`."""
    hold = command(job_commands, "hold", "let nothing of a job start, and pause what runs", _job_hold)
    summary = "let a held job go on, and answer a machine that waits for somebody"
    release = command(job_commands, "release", summary, _job_release)
    words = {
        "good": ("good", "say that the part of a held step is good"),
        "scrap": ("scrapped", "say that the part of a held step is scrap"),
        "retry": ("retry", "try a held step once more, if its order allows it"),
    }
    resolving = []
    for name, (resolution, summary) in words.items():
        parser = command(job_commands, name, summary, _job_resolve)
        parser.set_defaults(resolution=resolution)
        parser.add_argument("--part", type=int, metavar="N", help="which part, if steps of several are held")
        parser.add_argument("--step", metavar="STEP", help="which step, if several are held")
        resolving.append(parser)
    for parser in (hold, release, *resolving):
        parser.add_argument("job", metavar="JOB", help=JOB)
        parser.add_argument("--reason", default="", metavar="TEXT", help="recorded with your name")


def add_machine_commands(machine_commands: Commands) -> None:
    """`machine show`, `clear`, `load`, `acknowledge`, `maintain`, `identify`, `trust` and `profiles`."""
    show = command(machine_commands, "show", "all that is seen of a machine, with its open conditions", _machine_show)
    show.add_argument("machine", metavar="MACHINE")
    clear = command(machine_commands, "clear", "say that the finished part has been taken off", _machine_clear)
    clear.add_argument("machine", metavar="MACHINE")
    clear.add_argument("--run", metavar="RUN", help="the run that left it (default: the one that the site names)")
    summary = "say what is loaded now, as material=PETG; without values: what counts, and who has said so"
    load = command(machine_commands, "load", summary, _machine_load)
    load.add_argument("machine", metavar="MACHINE")
    load.add_argument("values", nargs="*", metavar="NAME=VALUE", help="properties that site.toml names for it")
    summary = "take note of an alarm or a safety stop that is over; nothing is started by it"
    noted = command(machine_commands, "acknowledge", summary, _machine_acknowledge)
    noted.add_argument("machine", metavar="MACHINE")
    what = "as shown by `show` (default: the only one, or all that are over)"
    noted.add_argument("condition", metavar="CONDITION", nargs="?", help=what)
    noted.add_argument("--comment", default="", metavar="TEXT", help="told to the machine and recorded with your name")
    summary = "take a machine out of service, or back into it; what runs goes on"
    maintain = command(machine_commands, "maintain", summary, _machine_maintain)
    maintain.add_argument("machine", metavar="MACHINE")
    maintain.add_argument("--end", action="store_true", help="back into service, also after `edge make-safe`")
    maintain.add_argument("--reason", default="", metavar="TEXT", help="recorded with your name")
    summary = "ask a machine who it is; get a key for it first, if it wants one and there is none"
    identify = command(machine_commands, "identify", summary, _machine_identify)
    identify.add_argument("machine", metavar="MACHINE")
    trust = command(machine_commands, "trust", "certificates: what this side and the machine trust", _machine_trust)
    trust.add_argument("machine", metavar="MACHINE")
    trust.add_argument("--accept", metavar="FINGERPRINT", help="trust the machine's certificate: you have compared it")
    trust.add_argument("--renew", action="store_true", help="make a new certificate of ours; the machine must trust it")
    command(machine_commands, "profiles", "the firmware and controllers that the drivers know", _machine_profiles)


def _demo(args: argparse.Namespace) -> int:
    from edge.demo import story

    return story.main(args)


def _init(args: argparse.Namespace) -> int:
    from edge.cli import site

    return site.init(args)


def _check(args: argparse.Namespace) -> int:
    from edge.cli import site

    return site.check(args)


def _run(args: argparse.Namespace) -> int:
    from edge.cli import site

    return site.run(args)


def _restart(args: argparse.Namespace) -> int:
    from edge.cli import restart

    return restart.restart(args)


def _make_safe(args: argparse.Namespace) -> int:
    from edge.cli import make_safe

    return make_safe.make_safe(args)


def _status(args: argparse.Namespace) -> int:
    from edge.cli import status

    return status.status(args)


def _machines(args: argparse.Namespace) -> int:
    from edge.cli import status

    return status.machines(args)


def _jobs(args: argparse.Namespace) -> int:
    from edge.cli import jobs

    return jobs.jobs(args)


def _why(args: argparse.Namespace) -> int:
    from edge.cli import jobs

    return jobs.why(args)


def _events(args: argparse.Namespace) -> int:
    from edge.cli import events

    return events.events(args)


def _job_submit(args: argparse.Namespace) -> int:
    from edge.cli import jobs

    return jobs.submit(args)


def _job_import(args: argparse.Namespace) -> int:
    from edge.cli import job_import

    return job_import.import_(args)


def _job_show(args: argparse.Namespace) -> int:
    from edge.cli import jobs

    return jobs.show(args)


def _job_cancel(args: argparse.Namespace) -> int:
    from edge.cli import jobs

    return jobs.cancel(args)


def _job_decline(args: argparse.Namespace) -> int:
    from edge.cli import steer

    return steer.decline(args)


def _job_hold(args: argparse.Namespace) -> int:
    from edge.cli import steer

    return steer.hold(args)


def _job_release(args: argparse.Namespace) -> int:
    from edge.cli import steer

    return steer.release(args)


def _job_resolve(args: argparse.Namespace) -> int:
    from edge.cli import steer

    return steer.resolve(args)


def _machine_profiles(args: argparse.Namespace) -> int:
    from edge.cli import profiles

    return profiles.profiles(args)


def _machine_clear(args: argparse.Namespace) -> int:
    from edge.cli import machine

    return machine.clear(args)


def _machine_load(args: argparse.Namespace) -> int:
    from edge.cli import load

    return load.load(args)


def _machine_maintain(args: argparse.Namespace) -> int:
    from edge.cli import machine

    return machine.maintain(args)


def _machine_show(args: argparse.Namespace) -> int:
    from edge.cli import conditions

    return conditions.show(args)


def _machine_acknowledge(args: argparse.Namespace) -> int:
    from edge.cli import conditions

    return conditions.acknowledge(args)


def _machine_trust(args: argparse.Namespace) -> int:
    from edge.cli import machine

    return machine.trust(args)


def _machine_identify(args: argparse.Namespace) -> int:
    from edge.cli import machine

    return machine.identify(args)
