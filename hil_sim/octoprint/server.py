"""The HTTP side of a simulated OctoPrint: REST, push socket, application keys, and `/hil` for whoever tests."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

from hil_sim.octoprint.faults import AT_ONCE, FaultError, Faults
from hil_sim.octoprint.files import Files
from hil_sim.octoprint.printing import Printing

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PERMISSIONS = (
    *("STATUS", "CONNECTION", "FILES_LIST", "FILES_UPLOAD", "FILES_DOWNLOAD", "FILES_DELETE", "FILES_SELECT", "PRINT"),
    *("CONTROL", "SETTINGS_READ"),
)
"""Of the group `users`, as far as they are about printing."""

MAX_BYTES = 1024**3
PUSH_S = 0.5
"""How often a client is told the state, at throttle 1."""

FORGET_REQUEST_S = 5.0
"""An application's request that nobody asks about is forgotten."""

DENIED = "You don't have the permission to access the requested resource."
MISSING = "The requested URL was not found on the server."


@dataclass(frozen=True)
class Options:
    """`users` maps keys to names; a user called ``guest`` may do nothing. `newer`: the shapes of OctoPrint 2.0."""

    folder: Path
    users: dict[str, str]
    commands_per_s: float
    newer: bool = False


@dataclass
class _Client:
    socket: web.WebSocketResponse
    authorised: bool = False
    throttle: int = 1
    events: set[str] | None = None
    outbox: asyncio.Queue[dict[str, Any]] = field(default_factory=lambda: asyncio.Queue(1000))


class Server:
    """One simulated OctoPrint with its printer."""

    def __init__(self, options: Options, faults: Faults, record: Callable[[str], None]) -> None:
        self._options = options
        self._users = dict(options.users)
        self._faults = faults
        self._files = Files(options.folder, with_hash=not options.newer)
        self.printing = Printing(self._files, options.commands_per_s, options.newer, self._tell, record)
        self._clients: list[_Client] = []
        self._sessions: dict[str, str] = {}
        self._requests: dict[str, dict[str, Any]] = {}  # of application keys, by the application's token

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BYTES)
        local = "/api/files/local"
        app.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/server", self._server),
                web.get("/api/currentuser", self._currentuser),
                web.post("/api/login", self._login),
                web.get("/api/job", self._get_job),
                web.post("/api/job", self._post_job),
                web.get("/api/printer", self._get_printer),
                web.post("/api/printer/tool", self._heat),
                web.post("/api/printer/bed", self._heat),
                web.post("/api/printer/command", self._command),
                web.post("/api/connection", self._connection),
                web.post(local, self._upload),
                web.get(f"{local}/{{path:.+}}", self._get_file),
                web.post(f"{local}/{{path:.+}}", self._post_file),
                web.delete(f"{local}/{{path:.+}}", self._delete_file),
                web.get("/downloads/files/local/{path:.+}", self._download),
                web.get("/sockjs/websocket", self._push),
                web.post("/plugin/appkeys/request", self._ask_key),
                web.get("/plugin/appkeys/request/{token}", self._poll_key),
                web.post("/plugin/appkeys/decision/{token}", self._decide_key),
                web.get("/api/plugin/appkeys", self._pending_keys),
                web.post("/hil/fault", self._fault),
            ]
        )
        return app

    # Who may what

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/hil/"):
            return await handler(request)
        if slow := self._faults.get("slow"):
            await asyncio.sleep(float(slow))
        if status := self._faults.get("status"):
            return _error(int(status), DENIED if status in ("401", "403") else "as the fault wants it")
        open_to_all = request.path in ("/api/currentuser", "/sockjs/websocket") or request.path.startswith("/plugin/")
        if not open_to_all and self._user(request) in ("", "guest"):
            return _error(403, DENIED)
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return _error(404, MISSING)

    def _user(self, request: web.Request) -> str:
        return self._users.get(request.headers.get("X-Api-Key", ""), "")

    async def _version(self, request: web.Request) -> web.Response:
        version = self._said_version()
        return web.json_response({"api": "0.1", "server": version, "text": f"OctoPrint {version}"})

    def _said_version(self) -> str:
        return self._faults.get("version") or ("2.0.0rc7" if self._options.newer else "1.11.8")

    async def _server(self, request: web.Request) -> web.Response:
        safe = self._faults.get("safe-mode") or None
        return web.json_response({"version": self._said_version(), "safemode": safe})

    async def _currentuser(self, request: web.Request) -> web.Response:
        name = self._user(request)
        permissions = list(PERMISSIONS) if name not in ("", "guest") else []
        groups = ["users"] if permissions else ["guests"]
        return web.json_response({"name": name or None, "permissions": permissions, "groups": groups})

    async def _login(self, request: web.Request) -> web.Response:
        name, session = self._user(request), secrets.token_hex(16)
        self._sessions[session] = name
        return web.json_response({"name": name, "session": session, "active": True})

    # The job and the printer

    async def _get_job(self, request: web.Request) -> web.Response:
        shown = self.printing.job() | {"state": self.printing.state}
        if self.printing.error or self._options.newer:
            shown["error"] = self.printing.error or None
        return web.json_response(shown)

    async def _post_job(self, request: web.Request) -> web.Response:
        body = await request.json()
        user = self._user(request)
        if not self.printing.busy:
            return _error(
                409, f"Printer is neither printing nor paused, '{body['command']}' command cannot be performed"
            )
        match body["command"], body.get("action"):
            case "pause", "pause":
                self.printing.pause(user)
            case "pause", "resume":
                self.printing.resume(user)
            case "cancel", _:
                self.printing.cancel(user)
            case _:
                return _error(400, "this command is not simulated")
        return web.Response(status=204)

    async def _get_printer(self, request: web.Request) -> web.Response:
        if not self.printing.connected:
            return _error(409, "Printer is not operational")
        return web.json_response({"temperature": self.printing.temperatures(), "state": self._state()})

    def _state(self) -> dict[str, Any]:
        return {"text": self.printing.state, "error": self.printing.error, "flags": {"printing": self.printing.busy}}

    async def _heat(self, request: web.Request) -> web.Response:
        body = await request.json()
        targets = body["targets"] if "targets" in body else {"bed": body["target"]}
        for name, degc in targets.items():
            self.printing.heat(name, float(degc))
        return web.Response(status=204)

    async def _command(self, request: web.Request) -> web.Response:
        if not self.printing.connected:
            return _error(409, "Printer is not operational")
        self.printing.command((await request.json())["command"])
        return web.Response(status=204)

    async def _connection(self, request: web.Request) -> web.Response:
        if (await request.json())["command"] == "connect":
            self.printing.connect()
        else:
            self.printing.fail("", "Offline")
        return web.Response(status=204)

    # Files

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        file, userdata = form["file"], form.get("userdata")
        assert isinstance(file, web.FileField)
        assert userdata is None or isinstance(userdata, str)
        path = f"{form.get('path', '')}/{Path(file.filename).name}".strip("/")
        if self.printing.busy and self.printing.selected == path:
            return _error(409, "Trying to overwrite a file that is currently in use")
        content = file.file.read()
        if self._faults.get("corrupt-upload"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        self._files.put(path, content, self._user(request), None if userdata is None else json.loads(userdata))
        self._tell("UpdatedFiles", {"type": "printables"})
        shown = {"name": path.rpartition("/")[2], "path": path, "origin": "local"}
        answer = {"done": True, "effectiveSelect": False, "effectivePrint": False, "files": {"local": shown}}
        return web.json_response(answer, status=201)

    async def _get_file(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        place = self._files.place(path)
        if place.exists():
            return web.json_response(self._files.entry(path))
        # 1.11 cannot cope with a folder that is not there.
        broken = not self._options.newer and "/" in path and not place.parent.exists()
        return _error(500, "The server encountered an internal error") if broken else _error(404, MISSING)

    async def _post_file(self, request: web.Request) -> web.StreamResponse:
        path, body = request.match_info["path"], await request.json()
        if status := self._faults.get("start-status"):
            return _error(int(status), "as the fault wants it")
        if not self._files.place(path).exists():
            return _error(404, MISSING)
        if self.printing.state != "Operational":
            return _error(409, "Printer is already printing, cannot select a new file")
        if body.get("print"):
            self.printing.start(path, self._user(request))
        if self._faults.get("lose-start-answer") and request.transport is not None:
            request.transport.abort()
        return web.Response(status=204)

    async def _delete_file(self, request: web.Request) -> web.Response:
        path = request.match_info["path"]
        if not self._files.place(path).exists():
            return _error(404, MISSING)
        if self.printing.busy and self.printing.selected == path:
            return _error(409, "Trying to delete a file that is currently in use")
        self._files.remove(path)
        return web.Response(status=204)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        place = self._files.place(request.match_info["path"])
        return web.FileResponse(place) if place.exists() else _error(404, MISSING)

    # The push socket

    async def _push(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        client = _Client(socket)
        self._clients.append(client)
        safe = self._faults.get("safe-mode") or None
        client.outbox.put_nowait({"connected": {"version": self._said_version(), "safe_mode": safe}})
        tasks = [
            asyncio.create_task(self._send(client), name="push: send"),
            asyncio.create_task(self._repeat(client), name="push: state"),
        ]
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._told(client, json.loads(message.data))
        finally:
            self._clients.remove(client)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return socket

    def _told(self, client: _Client, said: dict[str, Any]) -> None:
        if "auth" in said:
            name, _, session = said["auth"].partition(":")
            if name and self._sessions.get(session) == name:
                client.authorised = True
                client.outbox.put_nowait({"history": self._current()})
            else:
                client.outbox.put_nowait({"reauthRequired": {"reason": "stale"}})
        if "throttle" in said:
            client.throttle = max(1, int(said["throttle"]))
        if "subscribe" in said:
            events = said["subscribe"].get("events", [])
            client.events = set(events) if isinstance(events, list) else None

    async def _send(self, client: _Client) -> None:
        while True:
            message = await client.outbox.get()
            if not self._faults.get("silent-push"):
                await client.socket.send_json(message)

    async def _repeat(self, client: _Client) -> None:
        while True:
            await asyncio.sleep(PUSH_S * client.throttle)
            if client.authorised and self.printing.connected and not client.outbox.full():
                client.outbox.put_nowait({"current": self._current()})

    def _current(self) -> dict[str, Any]:
        return self.printing.job() | {"state": self._state(), "temps": [self.printing.temperatures()], "markings": []}

    def _tell(self, kind: str, payload: dict[str, Any] | None) -> None:
        for client in self._clients:
            if client.authorised and (client.events is None or kind in client.events) and not client.outbox.full():
                client.outbox.put_nowait({"event": {"type": kind, "payload": payload}})

    # Application keys

    async def _ask_key(self, request: web.Request) -> web.Response:
        token = secrets.token_urlsafe(8)
        self._requests[token] = {
            "app_id": (await request.json())["app"],
            "user_token": secrets.token_urlsafe(8),
            "asked_s": asyncio.get_running_loop().time(),
            "key": None,
        }
        return web.json_response({"app_token": token}, status=201)

    async def _poll_key(self, request: web.Request) -> web.Response:
        token = request.match_info["token"]
        asked = self._requests.get(token)
        now_s = asyncio.get_running_loop().time()
        if asked is None or now_s - asked["asked_s"] > FORGET_REQUEST_S:
            return _error(404, MISSING)
        asked["asked_s"] = now_s
        if asked["key"] is None:
            return web.json_response({"message": "Awaiting decision"}, status=202)
        del self._requests[token]
        return web.json_response({"api_key": asked["key"]})

    async def _pending_keys(self, request: web.Request) -> web.Response:
        pending = {
            asked["user_token"]: {"app_id": asked["app_id"], "user_token": asked["user_token"]}
            for asked in self._requests.values()
            if asked["key"] is None
        }
        return web.json_response({"keys": [], "pending": pending})

    async def _decide_key(self, request: web.Request) -> web.Response:
        user, wanted = self._user(request), request.match_info["token"]
        found = [token for token, asked in self._requests.items() if asked["user_token"] == wanted]
        if user in ("", "guest") or not found:
            return _error(403 if found else 404, DENIED if found else MISSING)
        if (await request.json())["decision"]:
            key = secrets.token_urlsafe(24)
            self._users[key] = user
            self._requests[found[0]]["key"] = key
        else:
            del self._requests[found[0]]
        return web.Response(status=204)

    # Faults

    async def _fault(self, request: web.Request) -> web.Response:
        body = await request.json()
        name, argument = str(body.get("name", "")), str(body.get("argument", ""))
        match name:
            case "lose-files":
                self._files.lose()
            case "serial-error":
                self.printing.fail(argument or "Thermal Runaway, system stopped!", "Offline after error")
            case "serial-drop":
                self.printing.fail("", "Offline")
            case "restart":
                self.printing.forget()
                self._sessions.clear()
                for client in list(self._clients):
                    await client.socket.close()
            case _:
                assert name not in AT_ONCE
                try:
                    self._faults.switch(name, argument)
                except FaultError as error:
                    return _error(400, str(error))
        return web.Response(status=204)


def _error(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)
