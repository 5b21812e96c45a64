"""One attempt to get a file over HTTPS: it goes on where the last one stopped, and takes nothing it did not ask for."""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from edge.artifacts.artifacts import Artifacts
from edge.artifacts.download import MAX_REDIRECTS, download, make_context, open_session
from edge.artifacts.partial import Partial
from edge.errors import FetchError
from tests.helpers.files import FileServer, answers, cut_after, endless, etag_of, file_server, gives

CONTENT = random.Random(20261121).randbytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Setting:
    """A server with one file, and where it goes."""

    server: FileServer
    partial: Partial
    url: str
    context: ssl.SSLContext
    told: list[int] = field(default_factory=list)

    def cut_after(self, count: int, etag: str | None = None) -> None:
        """The next answer breaks off, once we have so many bytes."""
        self.server.faults.append(cut_after(count, etag=etag, has=lambda: self.told[-1]))

    async def fetch(self, size_bytes: int = len(CONTENT), window_s: float = 30.0, url: str = "") -> list[int]:
        self.told = [0]
        async with open_session(self.context) as session:
            await download(session, url or self.url, self.partial, size_bytes, self.told.append, window_s)
        return self.told

    async def problem(self, **how: object) -> str:
        with pytest.raises(FetchError) as caught:
            await self.fetch(**how)
        return str(caught.value)

    @property
    def bytes(self) -> bytes:
        return self.partial.path.read_bytes() if self.partial.path.exists() else b""


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[Setting]:
    async with file_server(tmp_path) as server:
        partial = Partial(Artifacts.open(tmp_path / "artifacts"), SHA256)
        yield Setting(server, partial, server.put("body.gcode", CONTENT), make_context(server.ca))


async def test_a_file_comes_whole_and_as_it_is(at: Setting) -> None:
    told = await at.fetch()
    assert at.bytes == CONTENT
    assert told[-1] == len(CONTENT)
    (asked,) = at.server.asked
    assert (asked.range, asked.if_range, asked.encoding) == ("", "", "identity")


async def test_an_empty_file_is_a_file(at: Setting) -> None:
    at.server.put("body.gcode", b"")
    await at.fetch(0)
    assert at.partial.path.read_bytes() == b""


@pytest.mark.parametrize("count", [1, 1000, 299_999])
async def test_a_cut_download_goes_on_where_it_stopped_if_the_file_is_the_same(at: Setting, count: int) -> None:
    at.cut_after(count)
    assert "localhost cannot be read" in await at.problem()
    assert at.bytes == CONTENT[:count]
    assert (await at.fetch())[1] == count
    assert at.bytes == CONTENT
    assert (at.server.asked[1].range, at.server.asked[1].if_range) == (f"bytes={count}-", etag_of(CONTENT))


async def test_a_file_that_has_changed_at_the_source_begins_anew(at: Setting) -> None:
    at.server.put("body.gcode", b"y" * len(CONTENT))
    at.cut_after(1000)
    await at.problem()
    assert at.bytes.startswith(b"y")
    at.server.put("body.gcode", CONTENT)
    await at.fetch()
    assert at.server.asked[1].range
    assert at.bytes == CONTENT


async def test_a_source_that_knows_no_ranges_begins_anew(at: Setting) -> None:
    at.server.ranges = False
    at.cut_after(1000)
    await at.problem()
    assert (await at.fetch())[1] == 0
    assert at.bytes == CONTENT


async def test_another_source_goes_on_with_the_first_one_s_bytes(at: Setting) -> None:
    at.cut_after(1000)
    await at.problem()
    await at.fetch(url=at.server.put("mirror/body.gcode", CONTENT))
    assert (at.server.asked[1].range, at.server.asked[1].if_range) == ("bytes=1000-", "")
    assert at.bytes == CONTENT


async def test_a_weak_etag_is_never_used_for_if_range(at: Setting) -> None:
    at.cut_after(1000, etag='W/"1"')
    await at.problem()
    await at.fetch()
    assert at.server.asked[1].if_range == ""
    assert at.bytes == CONTENT


async def test_what_is_whole_already_is_not_asked_for_again(at: Setting) -> None:
    at.partial.begin(at.url, "")
    at.partial.append(CONTENT)
    await at.fetch()
    assert at.server.asked == []


async def test_more_than_the_file_may_have_is_thrown_away(at: Setting) -> None:
    at.partial.begin(at.url, "")
    at.partial.append(CONTENT + b"x")
    await at.fetch()
    assert at.server.asked[0].range == ""
    assert at.bytes == CONTENT


@pytest.mark.parametrize(
    "place",
    [
        "",
        "bytes */300000",
        "bytes 0-299999/300000",
        "bytes 4-299999/300000",
        "bytes 5-299998/300000",
        "bytes 5-299999/300001",
        "bytes 5-299999/300000, 7-8",
        "items 5-299999/300000",
        "bytes 5-" + "9" * 40 + "/300000",
    ],
)
async def test_another_part_than_was_asked_for_is_refused(at: Setting, place: str) -> None:
    at.partial.begin(at.url, "")
    at.partial.append(CONTENT[:5])
    headers = {"Content_Range": place} if place else {}
    at.server.faults.append(answers(206, CONTENT[5:], **headers))
    assert "asked for was 'bytes 5-299999/300000'" in await at.problem()
    assert at.bytes == CONTENT[:5]


async def test_a_part_that_nobody_asked_for_is_refused(at: Setting) -> None:
    at.server.faults.append(answers(206, CONTENT, Content_Range="bytes 0-299999/300000"))
    assert "asked for was" in await at.problem()
    assert at.bytes == b""


async def test_a_range_that_the_source_cannot_give_throws_the_bytes_away(at: Setting) -> None:
    at.server.put("body.gcode", CONTENT[:5])
    at.partial.begin(at.url, etag_of(CONTENT[:5]))
    at.partial.append(CONTENT[:1000])
    assert "no more than the 1000 bytes" in await at.problem()
    assert at.bytes == b""


@pytest.mark.parametrize(
    ("size", "words"),
    [(len(CONTENT) - 1, "has a file of 300000 bytes, the order says 299999"), (300_001, "the order says 300001")],
)
async def test_another_length_is_refused_before_the_first_byte(at: Setting, size: int, words: str) -> None:
    assert words in await at.problem(size_bytes=size)
    assert not at.partial.path.exists()


async def test_a_source_that_never_ends_is_cut_off(at: Setting) -> None:
    at.server.faults.append(endless())
    assert "sends more than the 300000 bytes" in await at.problem()
    assert at.bytes == b""


async def test_a_content_coding_is_refused(at: Setting) -> None:
    at.server.faults.append(answers(200, b"x" * 100, Content_Encoding="gzip"))
    assert "encoded as 'gzip'" in await at.problem()
    assert at.bytes == b""


@pytest.mark.parametrize("status", [204, 304, 400, 401, 404, 410, 500, 503])
async def test_any_other_answer_is_told(at: Setting, status: int) -> None:
    at.server.faults.append(answers(status))
    assert await at.problem() == f"localhost answers {status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed(at: Setting, status: int) -> None:
    at.server.faults.append(answers(status, Location="/body.gcode"))
    await at.fetch(url=at.server.put("moved", b""))
    assert at.bytes == CONTENT


async def test_redirects_in_a_circle_end(at: Setting) -> None:
    at.server.faults += [answers(302, Location="/body.gcode")] * 50
    assert "more than 5 times" in await at.problem()
    assert len(at.server.asked) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "place", ["http://localhost/x", "file:///etc/passwd", "ftp://localhost/x", "https:///x", "data:,x", "//[", ""]
)
async def test_a_redirect_to_anything_but_https_is_refused(at: Setting, place: str) -> None:
    at.server.faults += [answers(302, Location=place)] * (MAX_REDIRECTS + 1)
    await at.problem()
    assert at.bytes == b""
    if place.startswith(("http:", "file:", "ftp:")):
        assert len(at.server.asked) == 1


@pytest.mark.parametrize("url", ["http://localhost/x", "file:///etc/passwd", "https://", "https://[", "https://a:b/c"])
async def test_an_address_that_is_none_is_an_error_in_words(at: Setting, url: str) -> None:
    await at.problem(url=url)
    assert at.server.asked == []


async def test_a_certificate_of_somebody_else_is_not_trusted(at: Setting) -> None:
    at.context = make_context(None)
    assert "certificate that is not trusted" in await at.problem()
    assert at.server.asked == []


async def test_nobody_there_is_told_without_the_address(at: Setting) -> None:
    problem = await at.problem(url="https://user:secret@127.0.0.1:1/private")
    assert problem.startswith("127.0.0.1 cannot be read: ")
    assert "secret" not in problem
    assert "private" not in problem


async def test_what_speaks_no_http_is_told_without_the_address(at: Setting) -> None:
    async def no_http(request: web.Request, content: bytes) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"220 \x1b[2J mail\r\n\r\n")
        request.transport.close()
        return web.Response()

    at.server.faults.append(no_http)
    at.url += "?token=secret"
    problem = await at.problem()
    assert problem.startswith("localhost cannot be read: ")
    assert problem.isprintable()
    assert "secret" not in problem


@pytest.mark.parametrize("place", ["https://user:secret@[", "https://localhost:1/secret", "//user:secret@a:b/"])
async def test_a_bad_redirect_is_told_without_the_address(at: Setting, place: str) -> None:
    at.server.faults.append(answers(302, Location=place))
    assert "secret" not in await at.problem()


async def test_a_source_that_drips_is_hung_up_on(at: Setting) -> None:
    async def drips(request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"ETag": etag_of(content)})
        response.content_length = len(content)
        await response.prepare(request)
        for byte in content:  # far longer than the test
            await response.write(bytes([byte]))
            await asyncio.sleep(0.01)
        return response

    at.server.faults.append(drips)
    assert "localhost is too slow" in await at.problem(window_s=1.0)
    assert CONTENT.startswith(at.bytes)
    at.server.faults.clear()
    await at.fetch()
    assert at.bytes == CONTENT


async def test_the_environment_s_proxy_is_not_asked(at: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    await at.fetch()
    assert at.bytes == CONTENT


async def test_another_file_of_the_same_length_is_for_the_hash_to_find(at: Setting) -> None:
    at.server.faults.append(gives(b"y" * len(CONTENT)))
    await at.fetch()
    assert at.bytes == b"y" * len(CONTENT)
