"""HTTP/JSON over a Unix socket: what the CLI talks to. The peer's Unix user is the actor of what it asks for.

Shapes are in docs/json.md. An error is ``{"error": "one sentence"}`` with status 4xx (asked wrongly) or 5xx (our fault;
the sentence has an id, and the traceback is in the log under it).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import shutil
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, assert_never

from aiohttp import web

from edge.artifacts.keeper import RESERVE_BYTES
from edge.errors import (
    ArtifactError,
    BundleError,
    ConfigError,
    EdgeError,
    IllegalTransitionError,
    StaleRevisionError,
    UsageError,
)
from edge.folders import no_socket
from edge.intake.intake import AnyVerdict, Receipt
from edge.jobstate import Resolution
from edge.logs import log_bug
from edge.model.fields import time_text
from edge.serving.exposition import CONTENT_TYPE
from edge.serving.site import Site
from edge.trust import CommandVerdict, RootVerdict, TimeVerdict, Verdict
from edge.trust.envelope import MAX_ENVELOPE_BYTES

log = logging.getLogger("edge.serving.api")

SOCKET_MODE = 0o660
MAX_BUNDLE_BYTES = 4 * 1024**3
MAX_BODY_BYTES = 64 * 1024
"""Of a request that is read into memory. A bundle is not: see `_received`."""

MAX_REASON = 200
MAKE_SAFE_S = 60.0
MAKE_SAFE_MAX_S = 120.0
FOLLOW_MAX_S = 60.0
MAX_DIGITS = 15

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_UCRED = struct.Struct("3i")
"""``struct ucred``: process, user and group id of the other side (unix(7), SO_PEERCRED)."""


def actor_of(request: web.Request) -> str:
    """``user:NAME`` of the process at the other end."""
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        raise UsageError("the other side is gone")
    _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        return f"user:{pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user:{uid}"


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return _error(error.reason, error.status)
    except (UsageError, ArtifactError) as error:
        return _error(str(error), 400)
    except (StaleRevisionError, IllegalTransitionError, ConfigError) as error:
        return _error(str(error), 409)
    except EdgeError as error:
        return _error(str(error), 503)
    except ConnectionError:
        return _error("the other side is gone", 400)  # nobody is left to read it
    except OSError as error:
        log.error("%s %s failed: %s", request.method, request.path, error)
        return _error(f"the site's disk or system refused: {error.strerror or error}", 503)
    except Exception as error:  # noqa: BLE001 - the boundary to the CLI: logged whole, told as one sentence
        return _error(f"internal error ({log_bug(log, error)}); the traceback is in the daemon's log", 500)


def _page(text: str) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})


def _error(sentence: str, status: int) -> web.Response:
    return web.json_response({"error": sentence}, status=status)


def application(site: Site) -> web.Application:
    """Every route."""

    async def status(request: web.Request) -> web.Response:
        return web.json_response(await site.status())

    async def machines(request: web.Request) -> web.Response:
        return web.json_response((await site.status())["machines"])

    async def jobs(request: web.Request) -> web.Response:
        return web.json_response(await site.jobs(all="all" in request.query))

    async def job(request: web.Request) -> web.Response:
        return web.json_response(await site.job(request.match_info["job"]))

    async def events(request: web.Request) -> web.Response:
        after = _whole(request, "after", 0)
        limit = min(_whole(request, "limit", 1000), 10_000)
        wait_s = min(_whole(request, "wait", 0), FOLLOW_MAX_S)
        return web.json_response(await site.events(after, limit, wait_s, request.query.get("machine")))

    async def submit(request: web.Request) -> web.Response:
        actor = actor_of(request)
        async with _received(request, site.incoming_dir) as path:
            try:
                receipt = await site.intake.file(path, actor)
            except BundleError as error:  # the name is ours, and gone: nobody knows it
                raise UsageError(str(error).replace(path.name, "the bundle")) from error
        return web.json_response(_receipt(receipt))

    async def take(request: web.Request) -> web.Response:
        raw = await _read(request)
        return web.json_response(_taken(await site.intake.take(raw, actor_of(request))))

    async def cancel(request: web.Request) -> web.Response:
        body = await _body(request)
        job_id, steering = request.match_info["job"], site.steering
        return web.json_response(await steering.cancel(job_id, actor_of(request), _reason(body)))

    async def decline(request: web.Request) -> web.Response:
        body = await _body(request)
        job_id, steering = request.match_info["job"], site.steering
        return web.json_response(await steering.decline(job_id, actor_of(request), _reason(body)))

    async def hold(request: web.Request) -> web.Response:
        body, wait_s = await _body(request), min(_whole(request, "wait", 0), FOLLOW_MAX_S)
        job_id, steering = request.match_info["job"], site.steering
        return web.json_response(await steering.hold(job_id, actor_of(request), _reason(body), wait_s))

    async def release(request: web.Request) -> web.Response:
        body, wait_s = await _body(request), min(_whole(request, "wait", 0), FOLLOW_MAX_S)
        job_id, steering = request.match_info["job"], site.steering
        return web.json_response(await steering.release(job_id, actor_of(request), _reason(body), wait_s))

    async def resolve(request: web.Request) -> web.Response:
        body = await _body(request)
        word, part, step = (body.get(key) for key in ("resolution", "part", "step"))
        if word not in list(Resolution):
            raise UsageError(f"resolution is {word!r}; one of {', '.join(Resolution)} is needed")
        if not (part is None or type(part) is int) or not (step is None or isinstance(step, str)):
            raise UsageError("part is to be a number and step a name, or both left out")
        job_id, steering, who = request.match_info["job"], site.steering, actor_of(request)
        return web.json_response(await steering.resolve(job_id, Resolution(word), part, step, who, _reason(body)))

    async def clear(request: web.Request) -> web.Response:
        body = await _body(request)
        run_id = body.get("run_id")
        if not isinstance(run_id, str):
            raise UsageError("run_id: name the run that left its part on the machine")
        return web.json_response(await site.clear(request.match_info["machine"], run_id, actor_of(request)))

    async def maintain(request: web.Request) -> web.Response:
        body = await _body(request)
        end = body.get("end", False)
        if not isinstance(end, bool):
            raise UsageError(f"end is {end!r}, true or false is needed")
        change = site.end_maintenance if end else site.begin_maintenance
        return web.json_response(await change(request.match_info["machine"], _reason(body), actor_of(request)))

    async def load(request: web.Request) -> web.Response:
        body = await _body(request)
        return web.json_response(await site.load(request.match_info["machine"], body.get("values"), actor_of(request)))

    async def trusted(request: web.Request) -> web.Response:
        return web.json_response(await site.trusted())

    async def acknowledge(request: web.Request) -> web.Response:
        body = await _body(request)
        token = body.get("token")
        if not isinstance(token, str):
            raise UsageError("token: name the condition that is acknowledged")
        machine, who = request.match_info["machine"], actor_of(request)
        return web.json_response(await site.acknowledge(machine, token, _reason(body), who))

    async def time(request: web.Request) -> web.Response:
        return web.json_response(site.time())

    async def confirm(request: web.Request) -> web.Response:
        return web.json_response(await site.confirm(actor_of(request)))

    async def restart(request: web.Request) -> web.Response:
        body = await _body(request)
        return web.json_response(await site.restart(actor_of(request), force=body.get("force") is True))

    async def make_safe(request: web.Request) -> web.Response:
        body = await _body(request)
        names, within_s = body.get("machines", []), body.get("within_s", MAKE_SAFE_S)
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UsageError("machines: a list of names is needed, an empty one for all")
        if isinstance(within_s, bool) or not (isinstance(within_s, int | float) and 0 < within_s <= MAKE_SAFE_MAX_S):
            raise UsageError(
                f"within_s is {within_s!r}, more than 0 and at most {MAKE_SAFE_MAX_S:g} seconds are needed"
            )
        return web.json_response(await site.make_safe(list(dict.fromkeys(names)), within_s, actor_of(request)))

    async def metrics(request: web.Request) -> web.Response:
        return _page(await site.metrics())

    app = web.Application(middlewares=[_errors], client_max_size=MAX_BODY_BYTES)
    app.add_routes(
        [
            web.get("/v1/status", status),
            web.get("/v1/machines", machines),
            web.get("/v1/jobs", jobs),
            web.post("/v1/jobs", submit),
            web.post("/v1/envelopes", take),
            web.get("/v1/jobs/{job}", job),
            web.post("/v1/jobs/{job}/cancel", cancel),
            web.post("/v1/jobs/{job}/decline", decline),
            web.post("/v1/jobs/{job}/hold", hold),
            web.post("/v1/jobs/{job}/release", release),
            web.post("/v1/jobs/{job}/resolve", resolve),
            web.post("/v1/machines/{machine}/clear", clear),
            web.post("/v1/machines/{machine}/maintain", maintain),
            web.post("/v1/machines/{machine}/load", load),
            web.post("/v1/machines/{machine}/acknowledge", acknowledge),
            web.post("/v1/machines/trusted", trusted),
            web.get("/v1/events", events),
            web.get("/v1/time", time),
            web.post("/v1/journal/confirm", confirm),
            web.post("/v1/make-safe", make_safe),
            web.post("/v1/restart", restart),
            web.get("/metrics", metrics),
        ]
    )
    return app


@contextlib.asynccontextmanager
async def serve_metrics(site: Site, port: int) -> AsyncIterator[None]:
    """Give the metrics, and nothing else, on 127.0.0.1, until the block is left."""

    async def metrics(request: web.Request) -> web.Response:
        return _page(await site.metrics())

    app = web.Application(middlewares=[_errors])
    app.add_routes([web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, "127.0.0.1", port).start()
        except OSError as error:
            raise UsageError(f"metrics.port: cannot listen on 127.0.0.1:{port}: {_why(error)}") from error
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def serve(site: Site, path: Path, gid: int) -> AsyncIterator[None]:
    """Listen on the Unix socket `path`, which the group `gid` may use, until the block is left."""
    await _remove_stale(path)
    runner = web.AppRunner(application(site), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    bound = False
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _cannot_listen(path, _why(error)) from error
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The name appears with its final permissions: nobody else gets in between bind and chmod.
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            listener.bind(str(path))
            bound = True
        except OSError as error:
            listener.close()
            raise _cannot_listen(path, _why(error)) from error
        finally:
            os.umask(before)
        with contextlib.suppress(PermissionError):  # not ours to give away: then it keeps the daemon's own group
            os.chown(path, -1, gid)
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
        if bound:
            path.unlink(missing_ok=True)


def _cannot_listen(path: Path, problem: str) -> UsageError:
    return UsageError(f"site.socket: cannot listen on {path}: {problem}")


def _why(error: OSError) -> str:
    """As the system has it: what asyncio makes of it repeats the address."""
    return os.strerror(error.errno) if error.errno else str(error)


async def _remove_stale(path: Path) -> None:
    """Remove what a killed daemon left; refuse what is no socket, and one where somebody answers."""
    if problem := no_socket(path):
        raise _cannot_listen(path, problem)
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    except OSError as error:
        raise _cannot_listen(path, _why(error)) from error
    writer.close()
    await writer.wait_closed()
    raise UsageError(f"another daemon answers on {path}")


@contextlib.asynccontextmanager
async def _received(request: web.Request, directory: Path) -> AsyncIterator[Path]:
    """The request's body in a temporary file, gone after the block. It never takes what is kept for the journal.

    The disk is asked before each piece: other uploads come at the same time.
    """
    with tempfile.NamedTemporaryFile(dir=directory, prefix="upload-", suffix=".mfjob") as file:
        size = 0
        async for chunk in request.content.iter_chunked(256 * 1024):
            free_bytes = (await asyncio.to_thread(shutil.disk_usage, directory)).free
            room = min(MAX_BUNDLE_BYTES, size + free_bytes - RESERVE_BYTES)
            size += len(chunk)
            if size > room:
                raise UsageError(
                    f"the bundle is too large: this site takes at most {MAX_BUNDLE_BYTES} bytes"
                    if room == MAX_BUNDLE_BYTES
                    else "the disk has no room for the bundle beside what is kept for the journal"
                    f" ({RESERVE_BYTES} bytes); {free_bytes} are free"
                )
            await asyncio.to_thread(file.write, chunk)
        file.flush()
        yield Path(file.name)


async def _read(request: web.Request) -> bytes:
    """The request's body, cut where it is too large for any envelope: the verdict on the rest is the same."""
    raw = b""
    async for chunk in request.content.iter_chunked(64 * 1024):
        raw += chunk
        if len(raw) > MAX_ENVELOPE_BYTES:
            break
    return raw


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json() if request.can_read_body else {}
    except ValueError as error:  # no JSON, or no text
        raise UsageError(f"the request's body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise UsageError("the request's body is no JSON object")
    return body


def _reason(body: dict[str, Any]) -> str:
    """What a person says; it is kept for ever, and shown to others."""
    reason = body.get("reason", "")
    if not (isinstance(reason, str) and len(reason) <= MAX_REASON and reason.isprintable()):
        raise UsageError(f"the reason is to be a text of at most {MAX_REASON} printable characters")
    return reason


def _whole(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise UsageError(f"{name} is {text!r}, a whole number is needed")
    return int(text)


def _taken(verdict: AnyVerdict) -> dict[str, Any]:
    match verdict:
        case RootVerdict(root=root):
            about: dict[str, Any] = {"kind": "root", "version": None if root is None else root.version}
        case CommandVerdict(command=command):
            verb = None if command is None else str(command.verb)
            about = {"kind": "command", "verb": verb, "job_id": command and command.job_id}
        case TimeVerdict(at=at):
            about = {"kind": "time", "at": at and time_text(at)}
        case Verdict(order=order):
            about = {"kind": "order", "job_id": order and order.job_id}
        case _ as never:
            assert_never(never)
    return about | {
        "accepted": verdict.accepted,
        "reason": None if verdict.reason is None else str(verdict.reason),
        "detail": verdict.detail,
        "digest": verdict.digest,
        "signers": list(verdict.signers),
        "repeated": verdict.repeated,
    }


def _receipt(receipt: Receipt) -> dict[str, Any]:
    verdict = receipt.verdict
    return {
        "accepted": verdict.accepted,
        "reason": None if verdict.reason is None else str(verdict.reason),
        "detail": verdict.detail,
        "digest": verdict.digest,
        "job_id": receipt.job_id,
        "signers": list(verdict.signers),
        "repeated": verdict.repeated,
        "files": {"stored": list(receipt.stored), "missing": list(receipt.missing), "refused": dict(receipt.refused)},
    }
