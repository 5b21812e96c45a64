"""`edge verify` without a file: the journal's chain, and everything that follows from it."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

from edge import sitefile
from edge.cli import text
from edge.folders import HEAD
from edge.journal.audit import audit
from edge.journal.headfile import HeadFile
from edge.journal.lookback import unlike
from edge.reading import beginning
from edge.reading.status import FINE, UNSAFE
from edge.reading.views import open_readonly


def verify(args: argparse.Namespace) -> int:
    """Walk the chain, fold all events again and compare, and look for the event that the head file names.

    0 if all of it holds, 2 if it does not.
    """
    file = sitefile.read(sitefile.find(args.config))
    witness = HeadFile(file.state_dir / HEAD)
    witness.read()  # before the journal, which may go on meanwhile
    with open_readonly(file.state_dir) as snapshot:
        before = beginning.in_words(beginning.pruned(snapshot.connection))
        report = audit(snapshot.connection)
        if (doubt := unlike(snapshot.connection, witness)) is not None:
            report = replace(report, problems=(*report.problems, str(doubt)))
    if args.json:
        text.print_json({**asdict(report), "ok": report.ok})
        return FINE if report.ok else UNSAFE
    print(f"journal {report.journal} of site {report.site}: {report.events} events")
    if before:
        print("\n".join(text.wrap(before, "  ")))
    if report.ok:
        print(f"  the chain is whole, and every state follows from it; head {report.head.hash[:16]}…")
        return FINE
    for problem in report.problems:
        print("\n".join(text.wrap(f"! {problem}", "  ")))
    return UNSAFE
