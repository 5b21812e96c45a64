"""What is dropped into the spool directory is taken in when it is whole, and refused by name when it is not right."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edge.errors import JournalError
from edge.intake import spool as module
from edge.intake.spool import AT_ONCE, Spool
from edge.trust import PayloadType
from tests.helpers.rig import Rig, rig
from tests.helpers.trust import PROGRAM


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, site: Rig) -> None:
        self._clock = site.clock
        self.now_s = 0.0

    def mono_s(self) -> float:
        return self.now_s

    def now(self) -> Any:
        return self._clock.now()

    def age_by_s(self) -> float:
        return self._clock.age_by_s()


class Setting:
    """A spool directory of a site."""

    def __init__(self, site: Rig, folder: Path) -> None:
        self.site, self.dir = site, folder / "spool"
        self.dir.mkdir()
        self.clock = Clock(site)
        self.spool = self.make()

    def make(self) -> Spool:
        return Spool(self.dir, self.site.intake.file, self.clock)  # type: ignore[arg-type]

    def drop(self, name: str = "job.mfjob", **fields: Any) -> Path:
        """A good bundle."""
        return self.site.bundle(**fields).rename(self.dir / name)

    def put(self, name: str, content: bytes) -> Path:
        (self.dir / name).write_bytes(content)
        return self.dir / name

    async def look(self, after_s: float = 5.0) -> bool:
        """Two looks, so long after each other."""
        await self.spool.round()
        self.clock.now_s += after_s
        return await self.spool.round()

    @property
    def accepted(self) -> int:
        return len(self.site.events("job_accepted"))

    def listed(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.dir / folder).iterdir()) if (self.dir / folder).is_dir() else []

    def reason(self, name: str) -> str:
        return (self.dir / "refused" / f"{name}.reason.txt").read_text()


@pytest.fixture
async def at(tmp_path: Path):
    async with rig(tmp_path) as site:
        yield Setting(site, tmp_path)


async def test_a_bundle_is_taken_in_when_it_has_settled_and_moved_away(at: Setting) -> None:
    at.drop()
    await at.spool.round()
    assert at.accepted == 0
    await at.look()
    (event,) = at.site.events("job_accepted")
    assert event["actor"] == "spool"
    assert at.site.artifacts.has(at.site.events("artifact_stored")[0]["body"]["sha256"])
    assert (at.listed("done"), at.listed("refused")) == (["job.mfjob"], [])
    assert not (at.dir / "job.mfjob").exists()


async def test_an_envelope_alone_is_taken_in(at: Setting) -> None:
    at.put("job.dsse.json", at.site.ceremony.sign(json.dumps(at.site.order()).encode()))
    await at.look()
    assert (at.accepted, at.listed("done")) == (1, ["job.dsse.json"])


async def test_a_file_that_is_still_being_copied_is_left_until_it_is_whole(at: Setting) -> None:
    content = at.site.bundle().read_bytes()
    for end in range(100, len(content), 300):
        at.put("job.mfjob", content[:end])
        await at.look()
        assert (at.accepted, at.listed("refused")) == (0, [])
    at.put("job.mfjob", content)
    await at.look()
    assert (at.accepted, at.listed("done")) == (1, ["job.mfjob"])


async def test_a_copy_that_does_not_go_on_is_refused_and_says_so(at: Setting) -> None:
    at.put("job.mfjob", at.site.bundle().read_bytes()[:-30])
    await at.look(module.PATIENCE_S - 1)
    assert at.listed("refused") == []
    await at.look(2)
    assert at.listed("refused") == ["job.mfjob", "job.mfjob.reason.txt"]
    assert "is not a zip file, or has been cut off" in at.reason("job.mfjob")


async def test_half_an_envelope_is_left_and_then_refused(at: Setting) -> None:
    at.put("job.dsse.json", at.site.ceremony.sign(b"{}")[:-5])
    await at.look()
    assert at.listed("refused") == []
    await at.look(module.PATIENCE_S)
    assert "JSON" in at.reason("job.dsse.json")


async def test_what_goes_by_another_name_is_left_alone(at: Setting) -> None:
    for name in (".job.mfjob", "job.mfjob.part", "readme.txt", "JOB.MFJOB"):
        at.drop(name)
    (at.dir / "folder").mkdir()
    await at.look(1000)
    assert at.accepted == 0
    assert len(list(at.dir.iterdir())) == 5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "a link, not a file"),
        (lambda path: path.symlink_to("nowhere"), "a link, not a file"),
        (lambda path: os.mkfifo(path), "no plain file"),
        (lambda path: path.mkdir(), "no plain file"),
    ],
)
async def test_what_is_no_plain_file_is_refused_by_name(at: Setting, make: Any, words: str) -> None:
    make(at.dir / "job.mfjob")
    await at.look()
    assert words in at.reason("job.mfjob")
    moved = at.dir / "refused" / "job.mfjob"
    assert not (moved.exists() and stat.S_ISREG(moved.lstat().st_mode))


async def test_a_socket_is_refused_by_name(at: Setting) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(at.dir / "job.mfjob"))
        await at.look()
    assert "it cannot be read: No such device" in at.reason("job.mfjob")


async def test_a_file_with_a_second_name_elsewhere_is_refused(at: Setting, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    os.link(secret, at.dir / "job.mfjob")
    await at.look()
    assert "several names" in at.reason("job.mfjob")
    assert "secret" not in at.reason("job.mfjob")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_that_may_not_be_read_is_refused_by_name(at: Setting) -> None:
    at.drop().chmod(0)
    await at.look()
    assert "cannot be read: Permission denied" in at.reason("job.mfjob")


async def test_a_file_that_cannot_be_opened_is_refused_by_name(at: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def denied(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "job.mfjob":
            raise PermissionError(13, "Permission denied")
        return real(path, flags, mode, dir_fd=dir_fd)

    at.drop()
    monkeypatch.setattr(module.os, "open", denied)
    await at.look()
    monkeypatch.undo()
    assert at.reason("job.mfjob") == "it cannot be read: Permission denied\n"


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("job.dsse.json", b" " * 50_000_000)


def _leads_out(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("job.dsse.json", b"{}")
        archive.writestr("../../etc/cron.d/evil", b"")


@pytest.mark.parametrize(("make", "words"), [(_bomb, "says it has 50000000 bytes"), (_leads_out, "leads out")])
async def test_a_hostile_bundle_is_refused_by_name(at: Setting, make: Any, words: str) -> None:
    make(at.dir / "job.mfjob")
    await at.look(module.PATIENCE_S)
    assert words in at.reason("job.mfjob")


async def test_an_order_that_is_refused_is_moved_with_its_reason(at: Setting) -> None:
    at.drop(site="berlin-2")
    await at.look()
    assert at.reason("job.mfjob").startswith("wrong_site: the order is for site berlin-2")
    assert len(at.site.events("job_refused")) == 1


async def test_a_wrong_file_in_a_good_bundle_is_told(at: Setting) -> None:
    order = at.site.order()
    (artifact,) = order["artifacts"].values()
    with zipfile.ZipFile(at.dir / "job.mfjob", "w") as archive:
        archive.writestr("job.dsse.json", at.site.ceremony.sign(json.dumps(order).encode()))
        archive.writestr(f"sha256/{artifact['sha256']}", PROGRAM[:-1] + b"!")
    await at.look()
    assert at.accepted == 1
    assert "is accepted, but artifact " in at.reason("job.mfjob")


async def test_other_payloads_come_to_the_same_door(at: Setting) -> None:
    at.put("root.dsse.json", at.site.ceremony.sign(b"{}", kind=PayloadType.ROOT))
    await at.look()
    assert at.reason("root.dsse.json").startswith("threshold: ")


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("a\nb\x1b[2J.mfjob", "a_b_[2J.mfjob-"),
        (os.fsdecode(b"\xff\xfe.mfjob"), "??.mfjob-"),
        ("x" * 240 + ".mfjob", "x" * 80 + "-"),
    ],
)
async def test_a_hostile_name_is_kept_under_a_harmless_one(at: Setting, name: str, kept: str, caplog: Any) -> None:
    at.put(name, b"garbage")
    await at.look(module.PATIENCE_S)
    listed = at.listed("refused")
    assert len(listed) == 2
    assert all(item.startswith(kept) and item.isprintable() for item in listed)
    assert "\x1b" not in caplog.text


async def test_a_name_that_is_taken_replaces_nothing(at: Setting) -> None:
    for _ in range(3):
        at.drop()
        await at.look()
    assert at.listed("done") == ["2-job.mfjob", "3-job.mfjob", "job.mfjob"]


async def test_a_thousand_hostile_files_do_not_keep_a_good_one_waiting(at: Setting, monkeypatch: Any) -> None:
    """The good one is of another owner, and comes last."""
    for number in range(1000):
        at.put(f"a{number:04}.dsse.json", b'{"payload": "", "payloadType": "x", "signatures": []}')
    at.drop("z.mfjob")
    real = module._files
    monkeypatch.setattr(
        module,
        "_files",
        lambda folder: (
            module._Found(item.name, item.look, 7 if item.name == "z.mfjob" else 8) for item in real(folder)
        ),
    )
    await at.spool.round()
    at.clock.now_s += module.SETTLE_S
    assert await at.spool.round(), "there is more to do"
    assert at.accepted == 1
    assert len(list(at.dir.iterdir())) == 2 + 1001 - AT_ONCE
    seq = at.site.journal.last_seq
    while await at.spool.round():
        pass
    assert (at.accepted, at.site.journal.last_seq) == (1, seq), "nothing of it is in the journal"
    assert list(at.dir.glob("*.json")) == []
    assert len(at.listed("refused")) <= 1002


async def test_where_nothing_can_be_moved_a_file_is_dealt_with_once(at: Setting, monkeypatch: Any) -> None:
    def refuses(*args: Any, **how: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(module.os, "mkdir", refuses)
    at.drop()
    at.put("bad.mfjob", b"garbage")
    taken = []
    real = at.spool._take

    async def take(path: Path, actor: str) -> Any:
        taken.append(path)
        return await real(path, actor)

    at.spool._take = take
    for _ in range(3):
        await at.look(module.PATIENCE_S)
    assert (len(taken), at.accepted) == (1, 1)
    assert sorted(path.name for path in at.dir.iterdir()) == ["bad.mfjob", "job.mfjob"]
    at.spool = at.make()  # a restart: the same bytes get the same answer
    seq = at.site.journal.last_seq
    await at.look()
    assert at.site.journal.last_seq == seq


async def test_a_journal_that_takes_nothing_leaves_the_file_for_later(at: Setting, monkeypatch: Any) -> None:
    at.drop()
    real = at.spool._take

    async def fails(path: Path, actor: str) -> Any:
        raise JournalError("the journal cannot be written")

    at.spool._take = fails
    with pytest.raises(JournalError):
        await at.look()
    at.spool._take = real
    await at.look()
    assert (at.accepted, at.listed("done")) == (1, ["job.mfjob"])


async def test_another_file_under_the_name_is_not_moved_for_the_one_that_was_read(at: Setting) -> None:
    at.drop()
    real = at.spool._take

    async def swap(path: Path, actor: str) -> Any:
        receipt = await real(path, actor)
        at.put(".other", b"other").rename(at.dir / "job.mfjob")
        return receipt

    at.spool._take = swap
    await at.look()
    assert at.accepted == 1
    assert (at.dir / "job.mfjob").read_bytes() == b"other"


async def test_links_in_the_place_of_its_own_folders_are_not_followed(at: Setting, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (at.dir / "done").symlink_to(tmp_path / "elsewhere")
    at.drop()
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        await at.look()
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_link_that_takes_the_place_of_its_folder_while_it_tidies_up_is_not_followed(
    at: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write into the spool directory may not have the daemon remove files elsewhere."""
    kept = tmp_path / "state" / "journal.sqlite"
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"all that happened")
    (at.dir / "done").mkdir()
    (at.dir / "done" / kept.name).write_bytes(b"")
    monkeypatch.setattr(module, "KEPT_S", -1.0)  # all of it is old
    remove = os.unlink

    def swap_and_remove(path: Any, *, dir_fd: int | None = None) -> None:
        if not (at.dir / "done").is_symlink():
            (at.dir / "done").rename(at.dir / "away")
            (at.dir / "done").symlink_to(kept.parent)
        remove(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", swap_and_remove)
    await at.spool.round()
    assert (at.dir / "done").is_symlink(), "it was tried"
    assert kept.read_bytes() == b"all that happened"
    assert list((at.dir / "away").iterdir()) == []
    await at.spool.round()
    assert kept.exists(), "nor is a link followed that is there at the beginning"


async def test_a_directory_that_is_missing_is_told_until_it_is_there(at: Setting) -> None:
    at.spool = Spool(at.dir / "stick", at.site.intake.file, at.site.clock, period_s=0.01, settle_s=0.0)
    serving = asyncio.create_task(at.spool.serve())
    try:
        await at.site.until(lambda: at.spool.trouble)
        assert at.spool.trouble == f"the spool directory {at.dir}/stick: No such file or directory"
        (at.dir / "stick").mkdir()
        at.drop("stick/job.mfjob")
        await at.site.until(lambda: at.accepted)
        await at.site.until(lambda: not at.spool.trouble)
    finally:
        serving.cancel()
        await asyncio.wait([serving])


async def test_a_file_that_nothing_can_be_done_with_keeps_no_other_waiting(at: Setting, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    take = at.site.intake.file

    async def stumble(path: Path, actor: str) -> Any:
        if not path.read_bytes().startswith(b"PK"):
            raise JournalError("it does not fit the journal")
        return await take(path, actor)

    monkeypatch.setattr(at.spool, "_take", stumble)
    for number in range(3):
        at.put(f"a-{number}.dsse.json", at.site.ceremony.order())
    at.drop("z.mfjob")
    await at.spool.round()
    at.clock.now_s += 5.0
    for _ in range(2):
        with pytest.raises(JournalError, match="does not fit"):
            await at.spool.round()
    assert at.accepted == 1
    assert at.listed("done") == ["z.mfjob"]
    monkeypatch.setattr(at.spool, "_take", take)
    await at.spool.round()
    await at.spool.round()
    assert len(at.listed("refused")) + len(at.listed("done")) > 3, "they come again"


async def test_a_file_that_our_own_code_stumbles_over_keeps_no_other_waiting(at: Setting, monkeypatch: Any) -> None:
    """The service begins anew after a bug, and must not begin with the same file each time."""
    take = at.site.intake.file

    async def stumble(path: Path, actor: str) -> Any:
        if not path.read_bytes().startswith(b"PK"):
            raise ZeroDivisionError
        return await take(path, actor)

    monkeypatch.setattr(at.spool, "_take", stumble)
    at.put("a.dsse.json", at.site.ceremony.order())
    at.drop("z.mfjob")
    await at.spool.round()
    at.clock.now_s += 5.0
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await at.spool.round()
    assert at.listed("done") == ["z.mfjob"]
