"""What is put back from an old copy carries nothing out again, and a key that was revoked stays revoked."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from edge.folders import FIRST_START, HEAD
from edge.intake.rootfolder import FOLDER_NAME
from edge.journal.schema import FILE_NAME
from edge.model.fields import parse_time
from edge.reading.status import ATTENTION
from tests.helpers.sim import sim_printer
from tests.helpers.site import SHORT, SiteFolder, starts, until
from tests.helpers.trust import ISSUER, OPERATOR, root_document, signed_root


def copy(site: SiteFolder, target: Path) -> Path:
    return Path(shutil.copytree(site.state_dir, target))


def put_back(site: SiteFolder, source: Path, *, whole: bool) -> None:
    """As an operator does it with `cp`, the daemon being stopped."""
    pattern = "*" if whole else f"{FILE_NAME}*"
    for old in site.state_dir.glob(pattern):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for new in source.glob(pattern):
        target = site.state_dir / new.name
        shutil.copytree(new, target) if new.is_dir() else shutil.copy2(new, target)


def waits(site: SiteFolder, job_id: str) -> list[str]:
    return [wait["code"] for wait in site.json("why", job_id)["waits"]]


@pytest.fixture
def site(tmp_path: Path) -> Any:
    made = SiteFolder(tmp_path, machines="")
    try:
        yield made
    finally:
        if made.daemon is not None:
            made.daemon.end(signal.SIGKILL)


def start(site: SiteFolder) -> None:
    site.start(ready="it listens on")


def stop(site: SiteFolder) -> None:
    assert site.daemon is not None
    assert site.daemon.end() == 0


@pytest.mark.parametrize("whole", [False, True])
def test_an_order_that_was_carried_out_does_not_begin_again_after_an_old_copy_was_put_back(
    tmp_path: Path, whole: bool
) -> None:
    site = SiteFolder(tmp_path)
    try:
        site.start(ready="it listens on")  # without the printer, so that the order waits
        job_id = str(site.submit(site.bundle(SHORT))["job_id"])
        assert site.daemon is not None
        assert site.daemon.end() == 0
        old = copy(site, tmp_path / "old")
        with sim_printer(tmp_path, speed=2000.0) as printer:
            site.start()
            site.wait_event("run_ended", job_id)
            ended = site.daemon.end()
            assert (ended, starts(printer)) == (0, 1)
            put_back(site, old, whole=whole)
            found = site.json("verify", code=0 if whole else 2)
            assert [("it is an old copy" in problem) for problem in found["problems"]] == ([] if whole else [True])

            site.start()
            until(lambda: waits(site, job_id) == ["journal"])
            status = site.json("status", code=ATTENTION)
            (held,) = [item for item in status["attention"] if item["kind"] == "journal_held"]
            assert held["command"] == "edge journal confirm"
            assert "was recorded here, and this file ends with event" in held["text"]
            assert "Orders that this file shows as waiting may have been carried out" in held["text"]
            assert "edge journal confirm" in site.edge("why", job_id).stdout
            (event,) = site.events("journal_held")
            witness = (tmp_path / next(tmp_path.glob("edge-*")).name if whole else site.state_dir) / HEAD
            assert event["body"]["reason"].startswith(f"{witness} says that event ")
            assert site.daemon.end() == 0
            site.start()  # nor at the next start
            until(lambda: waits(site, job_id) == ["journal"])
            assert site.edge("job", "cancel", job_id).returncode == 0  # somebody who looked knows that it was done
            site.json("journal", "confirm")
            other = site.printed(SHORT + b"G1 X30\n")
            assert starts(printer) == 2
            assert {job["job_id"]: job["state"] for job in site.json("jobs", "--all")}[other] == "COMPLETED"
            assert site.json("verify")["ok"], "what a person has confirmed counts from now on"
    finally:
        if site.daemon is not None:
            site.daemon.end(signal.SIGKILL)


def test_a_run_that_an_old_copy_shows_as_open_is_unknown(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path)
    with sim_printer(tmp_path, speed=2000.0) as printer:
        try:
            site.start()
            job_id = site.begun(commands=5, on_restart="resume")
            assert site.daemon is not None
            site.daemon.end(signal.SIGKILL)
            old = copy(site, tmp_path / "old")
            site.start()
            resumed = site.wait_event("run_resumed", job_id)
            site.edge("job", "cancel", job_id)
            site.wait_event("run_ended", job_id)
            assert site.daemon.end() == 0
            put_back(site, old, whole=False)
            site.start()
            ended = site.wait_event("run_ended", job_id)
            assert ended["body"]["outcome"] == "UNKNOWN"
            assert "the journal may not be all that happened" in ended["body"]["reason"]
            assert resumed["run_id"] == ended["run_id"]
            assert starts(printer) == 1
        finally:
            if site.daemon is not None:
                site.daemon.end(signal.SIGKILL)


@pytest.mark.parametrize("says_so", [False, True])
def test_who_puts_a_state_directory_back_after_a_boot_says_so_by_removing_its_head(site, tmp_path, says_so) -> None:
    """Without an uplink nobody else can know: docs/install.md and docs/trust.md say it."""
    start(site)
    stop(site)
    old = copy(site, tmp_path / "old")
    start(site)
    stop(site)
    put_back(site, old, whole=True)
    (runtime,) = tmp_path.glob("edge-*")
    shutil.rmtree(runtime)  # as a boot does
    if says_so:
        (site.state_dir / HEAD).unlink()
    start(site)
    assert [("is gone: nobody can tell" in held["body"]["reason"]) for held in site.events("journal_held")] == (
        [True] if says_so else []
    )


# Trust roots, and the time floor


def version(folder: Path, number: int, **fields: Any) -> Path:
    path = folder / f"root-{number}.json"
    path.write_bytes(signed_root(root_document(version=number, operators=(OPERATOR,), **fields)))
    return path


def lose_the_journal(site: SiteFolder) -> None:
    """The file is gone, whoever did it, and nobody says that the site is new."""
    for file in site.state_dir.glob(f"{FILE_NAME}*"):
        file.unlink()


def revoked(site: SiteFolder, tmp_path: Path) -> None:
    """A site at version 3 of the root, which revokes the issuer, while site.toml still names version 1."""
    start(site)
    chain = [version(tmp_path, 2), version(tmp_path, 3, revoked=(ISSUER,))]
    site.json("root", "submit", *map(str, chain))
    stop(site)


@pytest.mark.parametrize("says_new", [False, True])
def test_a_revoked_key_stays_revoked_when_the_journal_is_lost(site, tmp_path, says_new) -> None:
    revoked(site, tmp_path)
    floor = max(event["at_wall"] for event in site.events("site_stopped"))
    kept = sorted(path.name for path in (site.state_dir / FOLDER_NAME).iterdir())
    assert kept == ["1.dsse.json", "2.dsse.json", "3.dsse.json"]
    lose_the_journal(site)
    if says_new:
        (site.state_dir / FIRST_START).touch()
    start(site)
    assert site.json("root", "show")["root"]["version"] == 3
    assert site.submit(site.bundle(), code=2)["reason"] == "revoked_key"
    assert [event["body"]["version"] for event in site.events("root_accepted")] == [1, 2, 3]
    assert {event["actor"] for event in site.events("root_accepted")} == {"site"}
    assert parse_time(site.live()["daemon"]["clock"]["floor"]) >= parse_time(floor)
    (held,) = site.events("journal_held")
    assert held["body"]["floor"] >= floor
    site.json("journal", "confirm")
    assert site.json("verify")["ok"]


def test_a_journal_from_before_a_revocation_takes_it_from_the_files(site, tmp_path) -> None:
    start(site)
    stop(site)
    old = copy(site, tmp_path / "old")
    revoked(site, tmp_path)
    put_back(site, old, whole=False)
    (tmp_path / "root.dsse.json").write_bytes((tmp_path / "root-3.json").read_bytes())  # two ahead of that journal
    start(site)
    assert site.submit(site.bundle(), code=2)["reason"] == "revoked_key"
    assert [event["body"]["version"] for event in site.events("root_accepted")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-40]), "3.dsse.json is refused: malformed"),
        (lambda file: file.write_bytes(b""), "3.dsse.json is refused: malformed"),
        (lambda file: file.write_bytes(b"x" * 300_000), "3.dsse.json is refused: too_large"),
        (lambda file: (file.unlink(), file.symlink_to("/dev/zero")), "3.dsse.json is refused: malformed"),
        (lambda file: (file.unlink(), file.mkdir()), "3.dsse.json is refused: malformed"),
        (
            lambda file: file.write_bytes(signed_root(root_document(version=3), ("stranger",))),
            "3.dsse.json is refused: threshold",
        ),
        (
            lambda file: file.write_bytes((file.parent / "2.dsse.json").read_bytes()),
            "3.dsse.json is refused: version 2 of the trust root is in force here",
        ),
        (lambda file: (file.unlink(), version(file.parent, 4).rename(file.parent / "4.dsse.json")), "refused: gap"),
    ],
)
def test_a_file_that_does_not_follow_is_named_and_not_believed(site, tmp_path, spoil, words) -> None:
    revoked(site, tmp_path)
    lose_the_journal(site)
    spoil(site.state_dir / FOLDER_NAME / "3.dsse.json")
    start(site)
    assert site.json("root", "show")["root"]["version"] == 2
    status = site.json("status", code=ATTENTION)
    (item,) = [item for item in status["attention"] if item["kind"] == "storage"]
    assert words in item["text"]
    assert [held["kind"] for held in status["attention"]].count("journal_held") == 1
    assert len(json.dumps(status)) < 20_000


def test_what_a_journal_knows_better_is_mended(site, tmp_path) -> None:
    revoked(site, tmp_path)
    folder = site.state_dir / FOLDER_NAME
    right = (folder / "2.dsse.json").read_bytes()
    (folder / "2.dsse.json").write_bytes(b"{}")
    (folder / "3.dsse.json").unlink()
    start(site)
    assert site.json("root", "show")["root"]["version"] == 3
    assert (folder / "2.dsse.json").read_bytes() == right
    assert (folder / "3.dsse.json").read_bytes() == (tmp_path / "root-3.json").read_bytes()
    assert site.daemon is not None
    site.daemon.wait_line("2.dsse.json is not what this site went by, and is replaced")
    assert [item for item in site.live()["attention"] if item["kind"] == "storage"] == []
