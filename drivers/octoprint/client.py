"""HTTP and the push socket of one OctoPrint; what goes wrong comes out in words. No state but the connection."""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp

from drivers.octoprint import api
from drivers.octoprint.config import Connection
from edge.driver import ConnectError, Json, MachineError, Motion, ProtocolError

T = TypeVar("T")

ANSWER_S = 15.0
"""How long OctoPrint may be silent in the middle of an answer; one that is busy with its printer takes up to 5 s."""

UPLOAD_S = 180.0
"""How long it may be silent about a file: it reads all of it again, on whatever card it has."""

CONNECT_S = 5.0
PING_S = 10.0
"""A frozen OctoPrint keeps the socket open; a live one answers a ping in 3 ms."""

CHUNK_BYTES = 256 * 1024
MAX_ANSWER_BYTES = 16 * 1024 * 1024
NOT_OURS = (404, 405)
"""What something that is no OctoPrint, or one under another prefix, answers to what every OctoPrint knows."""


class AnswerError(MachineError):
    """OctoPrint answers, and does not do what was asked. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, Motion.NONE)
        self.status = status


class Client:
    """Made by `connected`. Every method raises `ConnectError`, `AnswerError` or `ProtocolError`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def ask(self, read: Callable[[object], T], path: str) -> T:
        """An answer, as `read` of `api` understands it."""
        return _understood(read, await self._ask("GET", path))

    async def post(self, path: str, body: dict[str, Json]) -> Any:
        """The JSON of an answer; None if it has none."""
        return await self._ask("POST", path, json=body)

    async def job(self) -> api.Job:
        return await self.ask(api.job, "/api/job")

    async def heaters(self) -> tuple[api.Heater, ...]:
        """None of them while OctoPrint is not connected to its printer."""
        try:
            return await self.ask(api.heaters, "/api/printer")
        except AnswerError as error:
            if error.status == 409:
                return ()
            raise

    async def find(self, path: str) -> api.Stored | None:
        """A file below the uploads; None if it is not there."""
        try:
            return await self.ask(api.stored, _file(path))
        except AnswerError as error:
            if error.status == 404:
                return None
            if error.status != 500 or await self.folder(path.rpartition("/")[0]):
                raise
        return None  # 1.11 answers 500 for a file in a folder that is not there

    async def folder(self, path: str) -> list[api.Stored]:
        """The files in a folder; none if it is not there."""
        try:
            return await self.ask(api.children, _file(path))
        except AnswerError as error:
            if error.status == 404:
                return []
            raise

    async def upload(self, name: str, content: Path, userdata: dict[str, Json]) -> None:
        """Put a file into our folder, in place of one of the same name."""
        with content.open("rb") as file:
            form = aiohttp.FormData()
            form.add_field("path", api.FOLDER)
            form.add_field("userdata", json.dumps(userdata))
            form.add_field("file", file, filename=name, content_type="application/octet-stream")
            await self._ask("POST", "/api/files/local", data=form, timeout=_patience(UPLOAD_S))

    async def sha256(self, path: str) -> str:
        """Of a file as OctoPrint gives it back."""
        found = hashlib.sha256()
        async with self._answer("GET", f"/downloads/files/local/{quote(path)}") as answer:
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                found.update(chunk)
        return found.hexdigest()

    async def delete(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""
        try:
            await self._ask("DELETE", _file(path))
        except AnswerError as error:
            if error.status != 404:
                raise

    async def start(self, path: str) -> None:
        """Ask for the print of a file; that it is asked for is all that the answer says."""
        await self.post(_file(path), {"command": "select", "print": True})

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """The push socket, logged in and subscribed."""
        credentials = _understood(api.authentication, await self.post("/api/login", {"passive": True}))
        try:
            socket = await self._session.ws_connect(f"{self.url}/sockjs/websocket", heartbeat=PING_S)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(self.url, error) from error
        try:
            await socket.send_json({"auth": credentials})
            await socket.send_json(api.subscription())
            yield socket
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(self.url, error) from error
        finally:
            await socket.close()

    # A key for the first time (https://docs.octoprint.org/en/1.11.8/bundledplugins/appkeys.html)

    async def ask_for_key(self, app: str) -> str:
        """Begin the workflow of application keys; the token to ask with."""
        try:
            return _understood(api.app_token, await self.post("/plugin/appkeys/request", {"app": app}))
        except AnswerError as error:
            if error.status == 404:
                raise AnswerError(404, f"{self.url} gives no application keys; make a key in its settings") from error
            raise

    async def granted(self, token: str) -> str | None:
        """The key, which is told once; None while nobody has decided."""
        async with self._answer("GET", f"/plugin/appkeys/request/{quote(token)}") as answer:
            if answer.status == 202:
                return None
            return _understood(api.granted_key, await self._document(answer))

    async def _ask(self, method: str, path: str, **content: Any) -> Any:
        async with self._answer(method, path, **content) as answer:
            return await self._document(answer)

    async def _document(self, answer: aiohttp.ClientResponse) -> Any:
        body = await _limited(answer)
        if not body:
            return None
        try:
            return json.loads(body)
        except ValueError as error:
            raise AnswerError(answer.status, f"{self.url} does not answer as an OctoPrint does") from error

    @contextlib.asynccontextmanager
    async def _answer(self, method: str, path: str, **content: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer that is no error."""
        try:
            async with self._session.request(method, f"{self.url}{path}", allow_redirects=False, **content) as answer:
                if answer.status >= 300:
                    raise self._refused(answer, (await _limited(answer)).decode("utf-8", "replace"))
                yield answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise _unreachable(self.url, error) from error

    def _refused(self, answer: aiohttp.ClientResponse, body: str) -> AnswerError:
        said = api.error_text(body)
        where = answer.headers.get("Location", "")
        match answer.status:
            case 301 | 302 | 303 | 307 | 308:
                words = f"{self.url} sends its visitors to {where}; write that address"
            case 401 | 403:
                words = f"{self.url} refuses this key, or its user may not do this"
            case 429:
                words = f"{self.url} has seen too many failed log-ins, and lets nobody in for a minute"
            case status:
                words = f"{self.url}: {said or 'no reason given'} (HTTP {status})"
        return AnswerError(answer.status, words)


@contextlib.asynccontextmanager
async def connected(connection: Connection, key: str | None) -> AsyncIterator[Client]:
    """HTTP with a key, or without one. Nothing is asked yet. Raises `ConnectError` for `ca`."""
    headers = {} if key is None else {"X-Api-Key": key}
    connector = aiohttp.TCPConnector(ssl=_trusted(connection.ca))
    async with aiohttp.ClientSession(headers=headers, timeout=_patience(ANSWER_S), connector=connector) as session:
        yield Client(session, connection.url)


def read_key(file: Path) -> str:
    """The key in a file that nobody else can read. Raises `ConnectError`."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        key = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise ConnectError(f"api_key_file {file}: no such file; `edge machine identify` gets a key") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ConnectError(f"api_key_file {file}: {reason}") from error
    if mode & 0o077:
        raise ConnectError(f"api_key_file {file}: others can read it (mode {mode:04o}); chmod 600 it")
    if not (key.isascii() and key.isprintable() and key):
        raise ConnectError(f"api_key_file {file}: one line with the key is wanted")
    return key


async def look(client: Client) -> tuple[str, api.Account]:
    """Who is there, in what version, and whose key it is. Raises `ConnectError` in words for what is not right."""
    url = client.url
    # Asked first, for it answers a wrong key, too, with 200 and nobody's name.
    try:
        who = await client.ask(api.account, "/api/currentuser")
    except AnswerError as error:
        if error.status in NOT_OURS:
            words = f"{url} is no OctoPrint, or not at this address (HTTP {error.status})"
            raise ConnectError(words) from error
        raise ConnectError(str(error)) from error
    if not who.name:
        raise ConnectError(f"{url} does not know this key; ask for a new one with `edge machine identify`")
    if missing := api.missing_permissions(who):
        raise ConnectError(f"{url}: the user {who.name} lacks {', '.join(missing)}; put it into the group 'users'")
    try:
        found = await client.ask(api.version, "/api/version")
    except AnswerError as error:
        raise ConnectError(str(error)) from error
    if api.too_old(found):
        oldest = ".".join(map(str, api.OLDEST))
        raise ConnectError(f"{url} is OctoPrint {found}; {oldest} or newer is needed")
    return found, who


def _understood(read: Callable[[object], T], answer: object) -> T:
    try:
        return read(answer)
    except api.NotUnderstoodError as error:
        raise ProtocolError(str(error), Motion.NONE) from error


async def _limited(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise AnswerError(answer.status, f"{answer.url}: the answer is too large")
    return bytes(body)


def _patience(silent_s: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silent_s)


def _file(path: str) -> str:
    return f"/api/files/local/{quote(path)}"


def _trusted(ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ConnectError(f"ca {ca}: {error.strerror or error}") from error


def _unreachable(url: str, error: Exception) -> ConnectError:
    """Why nobody could be asked."""
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            cause = getattr(error, "certificate_error", None) or error.os_error
            reason = getattr(cause, "verify_message", "") or getattr(cause, "reason", "") or str(cause)
            return ConnectError(f'{url}: TLS: {reason}; name its certificate with ca = "…" if it is your own')
        case aiohttp.ClientConnectorError():
            reason = error.os_error.strerror or str(error.os_error)
            return ConnectError(f"nobody answers at {url}: {reason}")
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            # Without its words: what answers may repeat what it was asked, and our key is in that.
            return ConnectError(f"{url} does not speak HTTP as an OctoPrint does")
        case TimeoutError():
            return ConnectError(f"{url} does not answer")
        case _:
            return ConnectError(f"{url} has closed the connection ({str(error) or type(error).__name__})")
