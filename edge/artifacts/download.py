"""One attempt to get the rest of one file from one source, over HTTPS.

Rules:

    1. https only, also after a redirect; the certificate is verified. Proxies and netrc of the environment are not
       looked at: a daemon has nobody's shell, and what reaches a site's files is to stand in site.toml.
    2. The order says how long the file is. A source that announces another length is refused before its first byte,
       and one that sends more is cut off at once.
    3. What is here is gone on with (Range, RFC 9110, 14.2), under If-Range if this very source gave a strong ETag for
       it. A 200 in answer begins anew; a 206 of another part than was asked for is refused.
    4. Bytes are kept as they are sent: a content coding is refused, so that nothing is ever unpacked.
    5. Who sends less than `MIN_BYTES` in `WINDOW_S` is hung up on.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import aiohttp
from yarl import URL

from edge.artifacts.partial import Partial
from edge.errors import FetchError

MAX_REDIRECTS = 5
CONNECT_S = 30.0
WINDOW_S = 60.0
MIN_BYTES = 60 * 1024
"""In each window: a kilobyte a second. What is slower holds a place that another file could have."""

WRITE_BYTES = 256 * 1024
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "microfactory-edge"}

_REDIRECTS = {301, 302, 303, 307, 308}
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16}|\*)")


def make_context(ca: Path | None) -> ssl.SSLContext:
    """Trust the authorities in the file `ca` and no others; without it, those of the host. Raises `OSError`."""
    return ssl.create_default_context(cafile=ca)


@asynccontextmanager
async def open_session(context: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    """What `download` asks through."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS,
        auto_decompress=False,
        trust_env=False,
        timeout=timeout,
    ) as session:
        yield session


def host_of(url: str) -> str:
    """What people are told of an address; its path or user may be a secret."""
    try:
        return URL(url).host or "a source without a host"
    except ValueError:
        return "a source without a host"


async def download(
    session: aiohttp.ClientSession,
    url: str,
    partial: Partial,
    size_bytes: int,
    on_bytes: Callable[[int], None],
    window_s: float = WINDOW_S,
) -> None:
    """Fetch from `url` until `partial` has `size_bytes` bytes; `on_bytes` is told how many it has.

    Raises:
        FetchError: it could not be done; what came is kept for the next attempt if it may be right.
        ArtifactError: the disk refused.
    """
    host = host_of(url)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(window_s) as limit:
            await _download(
                session, url, partial, size_bytes, on_bytes, lambda: limit.reschedule(loop.time() + window_s)
            )
    except aiohttp.ClientConnectorCertificateError as error:
        raise FetchError(f"{host} shows a certificate that is not trusted: {_reason(error)}") from error
    except aiohttp.ClientError as error:
        raise FetchError(f"{host} cannot be read: {_reason(error)}") from error
    except TimeoutError as error:
        raise FetchError(f"{host} is too slow: less than {MIN_BYTES} bytes in {window_s:.0f} s") from error
    except (OSError, ValueError) as error:  # ValueError: an address or a header that is none
        raise FetchError(f"{host} cannot be read: {_reason(error)}") from error
    finally:
        await asyncio.to_thread(partial.sync)


async def _download(
    session: aiohttp.ClientSession,
    url: str,
    partial: Partial,
    size_bytes: int,
    on_bytes: Callable[[int], None],
    enough: Callable[[], None],
) -> None:
    offset = await asyncio.to_thread(partial.size)
    if offset > size_bytes:
        await asyncio.to_thread(partial.discard)
        offset = 0
    if offset == size_bytes and offset:
        return
    headers = {}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if etag := await asyncio.to_thread(partial.etag_of, url):
            headers["If-Range"] = etag
    async with _answer(session, url, headers) as response:
        host = host_of(url)
        if response.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            await asyncio.to_thread(partial.discard)
            raise FetchError(f"{host} has no more than the {offset} bytes that came before; beginning anew")
        if response.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
            raise FetchError(f"{host} answers {response.status}")
        if (coding := response.headers.get("Content-Encoding", "identity").strip().lower()) != "identity":
            raise FetchError(f"{host} sends the file encoded as {coding[:20]!r}, it is to be sent as it is")
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            _check_range(host, response.headers.get("Content-Range", ""), offset, size_bytes)
        else:
            offset = 0
            _check_length(host, response.content_length, size_bytes)
            await asyncio.to_thread(partial.begin, url, _strong(response.headers.get("ETag", "")))
        on_bytes(offset)
        await _receive(host, response, partial, offset, size_bytes, on_bytes, enough)


@asynccontextmanager
async def _answer(
    session: aiohttp.ClientSession, url: str, headers: dict[str, str]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer at the end of all redirects."""
    place, host = URL(url), host_of(url)
    for _ in range(MAX_REDIRECTS + 1):
        if place.scheme != "https" or not place.host:
            raise FetchError(f"{host} leads to an address of the kind '{place.scheme[:20]}', only https is followed")
        async with session.get(place, headers=headers, allow_redirects=False) as response:
            if response.status not in _REDIRECTS:
                yield response
                return
            place = place.join(URL(response.headers.get("Location", "")))
    raise FetchError(f"{host} leads from one address to the next more than {MAX_REDIRECTS} times")


def _check_range(host: str, text: str, offset: int, size_bytes: int) -> None:
    found = _CONTENT_RANGE.fullmatch(text)
    wanted = f"bytes {offset}-{size_bytes - 1}/{size_bytes}"
    if (
        not offset
        or found is None
        or found.groups()
        not in (
            (str(offset), str(size_bytes - 1), str(size_bytes)),
            (str(offset), str(size_bytes - 1), "*"),
        )
    ):
        raise FetchError(f"{host} sends {text[:60]!r} of the file, asked for was '{wanted}'")


def _check_length(host: str, announced: int | None, size_bytes: int) -> None:
    if announced is not None and announced != size_bytes:
        raise FetchError(f"{host} has a file of {announced} bytes, the order says {size_bytes}")


def _strong(etag: str) -> str:
    """The ETag if it may stand in If-Range: RFC 9110, 13.1.5, lets no weak one do."""
    return etag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag) else ""


async def _receive(
    host: str,
    response: aiohttp.ClientResponse,
    partial: Partial,
    offset: int,
    size_bytes: int,
    on_bytes: Callable[[int], None],
    enough: Callable[[], None],
) -> None:
    waiting, came, mark = bytearray(), offset, offset + MIN_BYTES
    try:
        async for chunk in response.content.iter_any():
            came += len(chunk)
            if came > size_bytes:
                waiting.clear()
                await asyncio.to_thread(partial.discard)
                raise FetchError(f"{host} sends more than the {size_bytes} bytes that the order says")
            waiting += chunk
            on_bytes(came)
            if came >= mark:
                enough()
                mark = came + MIN_BYTES
            if len(waiting) >= WRITE_BYTES:
                await _write(partial, waiting)
    finally:
        if waiting:
            partial.append(bytes(waiting))  # not in a thread: whoever cancels this waits for no more than this
    if came < size_bytes:
        raise FetchError(f"{host} ends after {came} of {size_bytes} bytes")


async def _write(partial: Partial, waiting: bytearray) -> None:
    content = bytes(waiting)
    waiting.clear()
    await asyncio.to_thread(partial.append, content)


def _reason(error: BaseException) -> str:
    """In words, without the address: what `ClientResponseError` and `InvalidURL` are as text ends with it."""
    match error:
        case aiohttp.ClientResponseError():
            text = error.message
        case aiohttp.InvalidURL():
            text = error.description or ""
        case OSError(strerror=str(told)) if told:
            text = told
        case _:
            text = str(error)
    text = text or type(error).__name__
    return " ".join(text.split())[:160]
