"""An HTTPS server on the loopback that gives files, and misbehaves when it is told to.

async with file_server(tmp_path) as server:
    url = server.put("body.gcode", PROGRAM)
    server.faults.append(cut_after(10))             the next answer; the one after it is good again
    Fetcher(…, context=make_context(server.ca))
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse]]


@dataclass
class Asked:
    """One request as it came."""

    path: str
    range: str
    if_range: str
    encoding: str


@dataclass
class FileServer:
    """`files` by path. `faults` are used up one a request."""

    port: int
    ca: Path
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True

    def put(self, name: str, content: bytes) -> str:
        """Give this file; its address."""
        self.files[f"/{name}"] = content
        return f"https://localhost:{self.port}/{name}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = request.headers
        self.asked.append(
            Asked(
                request.path,
                headers.get("Range", ""),
                headers.get("If-Range", ""),
                headers.get("Accept-Encoding", ""),
            )
        )
        content = self.files.get(request.path)
        if self.faults:
            return await self.faults.pop(0)(request, content or b"")
        if content is None:
            return web.Response(status=404)
        etag = {"ETag": etag_of(content)} if self.etags else {}
        asked = headers.get("Range", "")
        if asked and self.ranges and headers.get("If-Range", etag_of(content)) == etag_of(content):
            offset = int(asked.removeprefix("bytes=").partition("-")[0])
            if offset >= len(content):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
            place = f"bytes {offset}-{len(content) - 1}/{len(content)}"
            return web.Response(status=206, body=content[offset:], headers={"Content-Range": place, **etag})
        return web.Response(body=content, headers=etag)


def etag_of(content: bytes) -> str:
    return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


def cut_after(count: int, *, etag: str | None = None, has: Callable[[], int] | None = None) -> Fault:
    """The rest is announced, and the connection breaks after so many bytes of it.

    `has` says how many the other side has of the whole: what it has not read when the connection breaks, it loses.
    """

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        asked = request.headers.get("Range", "")
        offset = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        rest = content[offset:]
        response = web.StreamResponse(status=206 if offset else 200, headers={"ETag": etag or etag_of(content)})
        response.content_length = len(rest)
        if offset:
            response.headers["Content-Range"] = f"bytes {offset}-{len(content) - 1}/{len(content)}"
        await response.prepare(request)
        await response.write(rest[:count])
        while has is not None and has() < offset + count:  # noqa: ASYNC110 - nobody announces it
            await asyncio.sleep(0.002)
        assert request.transport is not None
        request.transport.close()  # what was written goes out first
        return response

    return fault


def answers(status: int, body: bytes = b"", **headers: str) -> Fault:
    """A ready answer; ``Content_Range`` stands for ``Content-Range``."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, body=body, headers=named)

    return fault


def gives(content: bytes) -> Fault:
    """Another file than the one that was asked for, with all that belongs to it."""

    async def fault(request: web.Request, _: bytes) -> web.StreamResponse:
        return web.Response(body=content, headers={"ETag": etag_of(content)})

    return fault


def endless() -> Fault:
    """Bytes without an announced length, until somebody hangs up."""

    async def fault(request: web.Request, content: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            while request.transport is not None and not request.transport.is_closing():
                await response.write(b"x" * 65536)
                await asyncio.sleep(0)  # a write to somebody who has hung up does not wait, nor fail
        return response

    return fault


def certificates(folder: Path) -> tuple[Path, Path]:
    """An authority made for this test and a server's certificate for the loopback: the files of both."""
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=2))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        )

    uses = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    signs = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, decipher_only=False, **uses)
    authority = (
        builder(name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    ca_file, server_file = folder / "ca.pem", folder / "server.pem"
    ca_file.write_bytes(authority.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server_file.write_bytes(private + server.public_bytes(pem))
    return ca_file, server_file


@contextlib.asynccontextmanager
async def file_server(folder: Path) -> AsyncIterator[FileServer]:
    """A server that has no files yet."""
    ca, certificate = certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = FileServer(0, ca)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()
