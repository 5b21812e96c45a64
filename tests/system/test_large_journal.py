"""A journal that has grown large: the daemon is up before its file is checked, and nothing begins before that."""

from __future__ import annotations

import os
from pathlib import Path

from edge.journal.journal import CHECK_AT_OPEN_BYTES
from edge.journal.schema import FILE_NAME
from tests.helpers.large_journal import fill
from tests.helpers.site import DEADLINE_S, SiteFolder, site_with_printer

NAME = "berlin-1"
EVENTS = 50_000


def grown(site: SiteFolder) -> Path:
    """The journal of a site that has been stopped, with many more events."""
    assert site.daemon is not None
    site.daemon.end()
    path = site.state_dir / FILE_NAME
    fill(path, NAME, EVENTS)
    assert path.stat().st_size > CHECK_AT_OPEN_BYTES
    return path


def test_a_large_journal_is_checked_while_the_daemon_is_up_and_before_a_print(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, _):
        site.printed()
        grown(site)
        daemon = site.start(ready="is checked now")
        site.json("machine", "clear", "prn-1")
        job_id = site.printed()
        (place,) = [place for place, line in enumerate(daemon.lines) if "journal's file is sound" in line]
        (begins,) = [place for place, line in enumerate(daemon.lines) if f"begins job {job_id}" in line]
        assert place < begins


def test_a_large_journal_that_is_damaged_ends_the_daemon_in_one_sentence(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, _):
        path = grown(site)
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2 // 4096 * 4096)
            file.write(os.urandom(4096))
        daemon = site.start(ready="is checked now")
        daemon.wait_line("is damaged")
        assert daemon.process.wait(DEADLINE_S) not in (0, None)
        daemon.end()
        assert not [line for line in daemon.lines if "Traceback" in line]
