"""Takes a root, a parked order, a signed time and a command, again and again, each time killed one step later.

``python -m tests.system.intake_killed FOLDER`` prints ``killed STEP`` or ``done STEPS`` for each try; a step is as in
`tests.system.fetch_killed`. After a kill the site must have the old or the new state of each, and the same bytes again
must bring it to the new one.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from pathlib import Path

from edge.intake.authority import Authority
from edge.intake.intake import Intake
from edge.intake.nonce import NonceFile
from edge.intake.rootfolder import FOLDER_NAME, RootFolder
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.reading import views
from edge.trust import PayloadType
from edge.trust.signedtime import time_bytes
from tests import second_verifier
from tests.helpers.clock import IN_1970, SetClock
from tests.helpers.rig import Rig
from tests.helpers.trust import AT, OPERATOR, Ceremony, order_document, root_document, signed_root
from tests.system.fetch_killed import Killer, forked, say

TIME_KEY = "time@acme"
FIELDS = {"operators": (OPERATOR,), "times": (TIME_KEY,)}
FIRST = signed_root(root_document(**FIELDS))  # type: ignore[arg-type]
SECOND = signed_root(root_document(version=2, **FIELDS))  # type: ignore[arg-type]
KEYS = Ceremony(**FIELDS)
ORDERS = [
    KEYS.sign(json.dumps(order_document(job_id=f"01J9ZK3V5Q8M2N4P6R7S9T0W1{letter}", sequence=number)).encode())
    for number, letter in enumerate("XYZ", start=1)
]

CANCELLED = "01J9ZK3V5Q8M2N4P6R7S9T0W1X"
COMMAND = KEYS.command(job_id=CANCELLED)


async def work(folder: Path) -> None:
    """What a daemon does, from its start until everything is taken."""
    (folder / "root.json").write_bytes(FIRST)
    clock = SetClock(IN_1970, boot_id="boot")
    async with Journal.open(folder / FILE_NAME, "berlin-1", clock.stamp) as journal:
        authority = Authority.load(folder / "root.json")
        authority.folder = RootFolder(folder / FOLDER_NAME)
        await authority.settle(journal)
        clock.learn(await journal.transact(lambda transaction: transaction.known_time()))
        site, nonce = Rig(folder, journal), NonceFile.open(folder, clock)
        intake = Intake(journal, site.artifacts, authority, frozenset({"fdm"}), clock, nonce=nonce)
        for raw in ORDERS:
            await intake.take(raw, "usb")
        assert (await intake.take(SECOND, "usb")).accepted
        if not clock.now().trusted:
            payload = time_bytes(AT, nonce.to_show().value)
            answer = KEYS.sign(payload, (TIME_KEY, OPERATOR), PayloadType.TIME)
            assert (await intake.take(answer, "usb")).accepted
        await intake.judge_parked()
        assert (await intake.take(COMMAND, "usb")).accepted
        assert [event["job_id"] for event in site.events("cancel_requested")] == [CANCELLED]
        assert len(site.events("command_accepted")) == 1
        accepted = [event["body"]["digest"] for event in site.events("job_accepted")]
        assert len(accepted) == len(set(accepted)) == len(ORDERS)
        assert site.ask(lambda snapshot: snapshot.parked()) == 0
        assert [event["body"]["version"] for event in site.events("root_accepted")] == [1, 2]
        assert len(site.events("time_accepted")) == 1
        assert (await journal.verify()).problems == ()
        assert second_verifier.verify(folder / FILE_NAME) == (journal.last_seq, "")


def old_or_new(folder: Path) -> None:
    """Right after a kill: no order was taken before the time was known, and each is parked or accepted."""
    path = folder / FILE_NAME
    if not path.exists() or not path.stat().st_size:
        return
    with views.open_readonly(folder) as snapshot:
        kinds = [event["kind"] for event in snapshot.events()]
        for number, envelope in snapshot.connection.execute("SELECT version, envelope FROM roots"):
            kept = (folder / FOLDER_NAME / f"{number}.dsse.json").read_bytes()
            assert kept == envelope, "a root counts, and is not in its file"
        assert kinds.count("job_accepted") <= len(ORDERS)
        assert "job_accepted" not in kinds or "time_accepted" in kinds
        assert kinds.count("command_accepted") == kinds.count("cancel_requested"), "a command and what it does are one"
        if "time_accepted" in kinds:
            assert snapshot.parked() + kinds.count("job_accepted") >= len(ORDERS), "nothing is lost between"


def main(folder: Path) -> None:
    for at_step in itertools.count(1):
        site = folder / f"site-{at_step}"
        site.mkdir()

        def until_killed(site: Path = site, at_step: int = at_step) -> None:
            killer = Killer(site, at_step)
            asyncio.run(work(site))
            say(f"done {killer.steps}")

        code = forked(until_killed)
        if code == 0:
            return
        assert code == -signal.SIGKILL, code
        old_or_new(site)
        assert forked(lambda site=site: asyncio.run(work(site))) == 0
        say(f"killed {at_step}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
