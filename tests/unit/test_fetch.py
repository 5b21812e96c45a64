"""Files that open orders name are fetched, whatever their sources do, and written down once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edge.artifacts import fetch as module
from edge.artifacts.download import make_context
from edge.artifacts.fetch import Fetcher
from edge.artifacts.keeper import RESERVE_BYTES
from edge.artifacts.needs import Need
from edge.artifacts.partial import Partial
from edge.clock import SystemClock
from edge.errors import ArtifactError
from edge.model.event import Draft, EventKind
from edge.model.fields import time_text
from edge.timefloor import Source
from tests.helpers.files import FileServer, answers, cut_after, etag_of, file_server, gives
from tests.helpers.rig import Rig, rig

CONTENT = random.Random(7).randbytes(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class InTenDays(SystemClock):
    """When an order of today has expired."""

    def wall(self) -> datetime:
        return super().wall() + timedelta(days=10)


class Setting:
    """A site with a fetcher, and a server."""

    def __init__(self, site: Rig, server: FileServer) -> None:
        self.site, self.server = site, server
        self.arriving: set[str] = set()
        self.fetcher = self.make()

    def make(self, **how: Any) -> Fetcher:
        site = self.site
        defaults = {"arriving": lambda: self.arriving, "first_pause_s": 0.02, "window_s": 30.0}
        context = make_context(self.server.ca)
        return Fetcher(site.journal, site.folder, site.artifacts, site.clock, context, **(defaults | how))

    async def order(self, *sources: str, content: bytes = CONTENT, **fields: Any) -> str:
        """An accepted order without its file; its id."""
        file = {
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "media_type": "text/x.gcode",
            "sources": list(sources),
        }
        receipt = await self.site.submit(content, files=False, artifacts={"body.gcode": file}, **fields)
        assert receipt.verdict.accepted, receipt.verdict.detail
        return str(receipt.job_id)

    @contextlib.asynccontextmanager
    async def fetching(self, **how: Any) -> AsyncIterator[Fetcher]:
        self.fetcher = self.make(**how)
        serving = asyncio.create_task(self.fetcher.serve())
        try:
            yield self.fetcher
        finally:
            serving.cancel()
            await asyncio.wait([serving])

    async def until_stored(self, count: int = 1) -> list[dict[str, Any]]:
        await self.site.until(lambda: len(self.site.events("artifact_stored")) >= count)
        return self.site.events("artifact_stored")

    async def until_story(self, condition: Callable[[module.Story], object], sha256: str = SHA256) -> module.Story:
        def found() -> bool:
            story = self.fetcher.story(sha256)
            return story is not None and bool(condition(story))

        await self.site.until(found)
        story = self.fetcher.story(sha256)
        assert story is not None
        return story

    @property
    def quarantined(self) -> Path:
        return self.site.artifacts.directory / "quarantine" / SHA256


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Setting]:
    async with rig(tmp_path) as site, file_server(tmp_path) as server:
        yield Setting(site, server)


async def test_a_missing_file_is_fetched_and_written_down_once(at: Setting) -> None:
    async with at.fetching():
        job_id = await at.order(at.server.put("body.gcode", CONTENT))
        (event,) = await at.until_stored()
        await at.site.until(lambda: at.fetcher.story(SHA256) is None)
    assert (event["job_id"], event["actor"]) == (job_id, "site")
    assert event["body"] == {"sha256": SHA256, "size_bytes": len(CONTENT)}
    at.site.artifacts.verify(SHA256)
    assert list(at.site.artifacts.partial.iterdir()) == []
    assert len(at.server.asked) == 1


async def test_two_orders_for_one_file_are_one_download(at: Setting) -> None:
    url = at.server.put("body.gcode", CONTENT)
    await at.order(url)
    await at.order(url)
    async with at.fetching():
        await at.until_stored()
    assert len(at.server.asked) == 1
    assert len(at.site.events("artifact_stored")) == 1


@pytest.mark.parametrize(
    "fault",
    [
        answers(404),
        answers(500),
        answers(416),
        answers(200, b"short"),
        answers(200, CONTENT, Content_Encoding="gzip"),
        answers(302, Location="/body.gcode"),
        answers(302, Location="http://localhost/x"),
        gives(b"y" * len(CONTENT)),
        cut_after(100),
    ],
)
async def test_a_source_that_fails_is_followed_by_the_next(at: Setting, fault: Any) -> None:
    at.server.put("body.gcode", CONTENT)
    at.server.faults.append(fault)
    bad, good = at.server.put("bad", CONTENT), at.server.put("good", CONTENT)
    await at.order(bad, good)
    async with at.fetching():
        await at.until_stored()
    at.site.artifacts.verify(SHA256)
    assert at.server.asked[-1].path in ("/good", "/body.gcode")


async def test_another_file_is_set_aside_with_its_reason_and_never_visible(at: Setting) -> None:
    wrong = b"y" * len(CONTENT)
    await at.order(at.server.put("wrong", wrong))
    async with at.fetching():
        story = await at.until_story(lambda story: story.failing)
        assert "localhost gave another file" in str(story)
        assert not at.site.artifacts.has(SHA256)
        assert at.quarantined.read_bytes() == wrong
        assert "localhost gave another file" in at.quarantined.with_name(f"{SHA256}.reason.txt").read_text()
        at.server.put("wrong", CONTENT)
        await at.until_stored()


async def test_a_half_file_survives_a_restart_and_is_gone_on_with(at: Setting) -> None:
    url = at.server.put("body.gcode", CONTENT)
    half = Partial(at.site.artifacts, SHA256)
    half.begin(url, etag_of(CONTENT))
    half.append(CONTENT[:150_000])
    at.site.artifacts.open(at.site.artifacts.directory)  # what a start of the daemon does
    await at.order(url)
    async with at.fetching():
        await at.until_stored()
    (asked,) = at.server.asked
    assert asked.range == "bytes=150000-"


async def test_a_half_file_of_garbage_is_found_by_the_hash_and_begins_anew(at: Setting) -> None:
    url = at.server.put("body.gcode", CONTENT)
    half = Partial(at.site.artifacts, SHA256)
    half.begin(url, "")
    half.append(b"garbage")
    await at.order(url)
    async with at.fetching():
        await at.until_stored()
    assert [asked.range for asked in at.server.asked] == ["bytes=7-", ""]
    assert at.quarantined.read_bytes() == b"garbage" + CONTENT[7:]
    reason = at.quarantined.with_name(f"{SHA256}.reason.txt").read_text()
    assert reason.startswith("what localhost gave after the 7 bytes that were here is another file")


async def test_a_source_that_breaks_off_after_other_bytes_does_not_spoil_the_good_one_for_ever(at: Setting) -> None:
    """Each time the wrong beginning is here first, and the good source goes on with it."""
    bad, good = at.server.put("bad", b"y" * len(CONTENT)), at.server.put("good", CONTENT)

    def arrived() -> int:
        story = at.fetcher.story(SHA256)
        return 0 if story is None else story.done_bytes

    async def breaks_off(request: web.Request, content: bytes) -> web.StreamResponse:
        try:
            if request.path == "/bad":
                return await cut_after(1000, has=arrived)(request, content)
            return await at.server.answer(request)
        finally:
            at.server.faults.append(breaks_off)

    at.server.faults.append(breaks_off)
    await at.order(bad, good)
    async with at.fetching():
        await at.until_stored()
    at.site.artifacts.verify(SHA256)
    assert [asked.range for asked in at.server.asked if asked.path == "/good"] == ["bytes=1000-"] * 2 + [""] * 2


async def test_an_order_that_says_another_size_of_the_file_keeps_no_other_from_getting_it(at: Setting) -> None:
    url = at.server.put("body.gcode", CONTENT)
    wrong = {"sha256": SHA256, "size_bytes": 10, "media_type": "text/x.gcode", "sources": [url]}
    receipt = await at.site.submit(CONTENT, files=False, artifacts={"body.gcode": wrong})
    assert receipt.verdict.accepted
    await at.order(url)
    async with at.fetching():
        (event,) = await at.until_stored()
    assert event["body"]["size_bytes"] == len(CONTENT)
    at.site.artifacts.verify(SHA256)


async def test_the_story_says_how_far_it_is_and_what_went_wrong_last(at: Setting) -> None:
    at.server.faults.append(cut_after(68_000, has=lambda: at.fetcher.story(SHA256).done_bytes))
    go_on = asyncio.Event()

    async def waits(request: web.Request, content: bytes) -> web.StreamResponse:
        await go_on.wait()
        at.server.faults.clear()
        return await at.server.answer(request)

    at.server.faults.append(waits)
    await at.order(at.server.put("body.gcode", CONTENT))
    async with at.fetching():
        story = await at.until_story(lambda story: story.error and story.host)
        assert str(story).startswith("34 % from localhost; last error: localhost cannot be read: ")
        assert not story.failing, "bytes came"
        go_on.set()
        await at.until_stored()


async def test_no_order_no_fetch(at: Setting) -> None:
    """Cancelled, expired, without sources, or here: nobody is asked."""
    url = at.server.put("body.gcode", CONTENT)
    await at.order(url)
    await at.order(content=b"no source")
    cancelled = await at.order(url, content=b"cancelled")
    await at.site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, cancelled)])
    a_month = time_text(datetime.now(UTC).replace(microsecond=0) + timedelta(days=30))
    at.site.clock = InTenDays(Source.HOST)
    async with at.fetching():
        other = b"the one that is fetched"
        await at.order(at.server.put("other", other), content=other, expires_at=a_month)
        await at.until_stored()
    assert {asked.path for asked in at.server.asked} == {"/other"}


async def test_a_job_that_is_cancelled_is_fetched_no_further(at: Setting) -> None:
    job_id = await at.order("https://127.0.0.1:1/x")
    async with at.fetching():
        await at.until_story(lambda story: story.failing)
        await at.site.journal.record([Draft(EventKind.CANCEL_REQUESTED, "user:ada", {}, job_id)])
        await at.site.until(lambda: at.fetcher.story(SHA256) is None)


async def test_what_a_bundle_brings_at_this_moment_is_not_fetched(at: Setting) -> None:
    at.arriving.add(SHA256)
    await at.order(at.server.put("body.gcode", CONTENT))
    other = b"the one that is fetched"
    await at.order(at.server.put("other", other), content=other)
    async with at.fetching():
        await at.until_stored()
        assert {asked.path for asked in at.server.asked} == {"/other"}
        at.arriving.clear()
        await at.until_stored(2)


async def test_a_file_that_came_right_before_a_power_cut_is_written_down_and_not_fetched(at: Setting) -> None:
    await at.order(at.server.put("body.gcode", CONTENT))
    (at.site.folder / "source").write_bytes(CONTENT)
    with (at.site.folder / "source").open("rb") as stream:
        at.site.artifacts.store(stream, SHA256, len(CONTENT))
    async with at.fetching():
        await at.until_stored()
    assert at.server.asked == []


async def test_a_file_that_a_power_cut_has_spoilt_is_set_aside_and_fetched(at: Setting) -> None:
    await at.order(at.server.put("body.gcode", CONTENT))
    path = at.site.artifacts.path(SHA256)
    path.parent.mkdir()
    path.write_bytes(bytes(len(CONTENT)))
    async with at.fetching():
        await at.until_stored()
    at.site.artifacts.verify(SHA256)
    assert at.quarantined.read_bytes() == bytes(len(CONTENT))


async def test_a_file_that_was_lost_is_fetched_again(at: Setting) -> None:
    await at.order(at.server.put("body.gcode", CONTENT))
    async with at.fetching():
        await at.until_stored()
        at.site.artifacts.quarantine(SHA256)
        await at.site.journal.record([Draft(EventKind.ARTIFACT_LOST, "site", {"sha256": SHA256, "reason": "damaged"})])
        await at.until_stored(2)


async def test_slow_sources_of_one_host_do_not_keep_others_from_coming(at: Setting) -> None:
    hung = 0

    async def hangs(request: web.Request, content: bytes) -> web.StreamResponse:
        nonlocal hung
        hung += 1
        await asyncio.Event().wait()
        raise AssertionError

    at.server.faults += [hangs] * 4
    for number in range(4):
        await at.order(f"https://localhost:{at.server.port}/slow{number}", content=b"slow %d" % number)
    async with at.fetching():
        await at.site.until(lambda: hung == module.AT_ONCE_FROM_HOST)
        at.server.faults.clear()
        at.server.put("body.gcode", CONTENT)
        await at.order(f"https://127.0.0.1:{at.server.port}/body.gcode")
        await at.until_stored()
    assert hung == module.AT_ONCE_FROM_HOST


async def test_a_full_disk_is_told_and_tried_again(at: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    await at.order(at.server.put("body.gcode", CONTENT))
    room = [RESERVE_BYTES + len(CONTENT) - 1]
    monkeypatch.setattr(at.site.artifacts, "free_bytes", lambda: room[0])
    async with at.fetching():
        assert "the disk has room for 199999 bytes" in str(await at.until_story(lambda story: story.failing))
        assert at.server.asked == []
        room[0] += 1
        await at.until_stored()


async def test_a_bug_in_one_download_is_told_and_the_others_go_on(
    at: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, broken = at.site.artifacts.adopt, [True]

    def adopt(half: Path, sha256: str, size_bytes: int) -> Path:
        if sha256 == SHA256 and broken[0]:
            raise RuntimeError("a bug")
        return real(half, sha256, size_bytes)

    monkeypatch.setattr(at.site.artifacts, "adopt", adopt)
    await at.order(at.server.put("body.gcode", CONTENT))
    async with at.fetching():
        other = b"the other"
        await at.order(at.server.put("other", other), content=other)
        await at.until_stored()
        await at.order(content=b"wakes it")
        story = await at.until_story(lambda story: story.error)
        assert "internal error (id " in story.error
        broken[0] = False
        await at.order(content=b"wakes it again")
        await at.until_stored(2)
    assert "a bug" in caplog.text


@pytest.mark.parametrize(("host", "done_bytes", "room_bytes"), [("elsewhere", 0, 50_000), ("", 120_000, 130_000)])
async def test_downloads_at_the_same_time_leave_the_reserve_alone(
    at: Setting, monkeypatch: pytest.MonkeyPatch, host: str, done_bytes: int, room_bytes: int
) -> None:
    """The disk has become smaller since the orders came: each of two files would fit, together they do not."""
    at.fetcher._jobs["f" * 64] = module._Job([], module.Story(200_000, done_bytes, host))
    monkeypatch.setattr(at.site.artifacts, "free_bytes", lambda: RESERVE_BYTES + 250_000)
    until = datetime.now(UTC) + timedelta(days=1)
    need = Need("01J9", "body.gcode", SHA256, len(CONTENT), ("https://127.0.0.1/body.gcode",), until)
    job = at.fetcher._jobs[SHA256] = module._Job([need], module.Story(len(CONTENT)))
    session: Any = None  # nobody is asked
    with pytest.raises(ArtifactError, match=f"room for {room_bytes} bytes, the file needs 200000"):
        await at.fetcher._download(session, need.sources[0], need, job)
