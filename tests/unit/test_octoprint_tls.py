"""A certificate that nobody vouches for is refused in words, and taken if site.toml names it."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drivers.octoprint import PLUGIN
from edge.driver import ConnectError
from tests.helpers.octoprint import machine_at

NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def own_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Signed by itself, for 127.0.0.1; and a server's side with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "octopi")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "octopi.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return file, context


async def refuses_everything(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(NOT_FOUND)
    await writer.drain()
    writer.close()


async def test_what_is_no_octoprint_is_not_quoted_for_it_may_repeat_our_key(tmp_path: Path) -> None:
    """A printer's own port answers each line of the request with that line."""

    async def repeats(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"echo:Unknown command: " + await reader.readuntil(b"\r\n\r\n"))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(repeats, "127.0.0.1", 0)
    async with server:
        machine = machine_at(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", tmp_path)
        key = machine.connection.api_key_file.read_text().strip()
        with pytest.raises(ConnectError, match="does not speak HTTP as an OctoPrint does") as caught:
            await asyncio.to_thread(PLUGIN.preflight, machine)
        assert key not in str(caught.value)


async def test_only_a_certificate_that_is_trusted_is_spoken_to(tmp_path: Path) -> None:
    file, context = own_certificate(tmp_path)
    server = await asyncio.start_server(refuses_everything, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        unknown, known = machine_at(url, tmp_path), machine_at(url, tmp_path, ca=file)
        with pytest.raises(ConnectError, match=r"TLS: self.signed certificate; name its certificate with ca"):
            await asyncio.to_thread(PLUGIN.preflight, unknown)
        with pytest.raises(ConnectError, match="is no OctoPrint"):
            await asyncio.to_thread(PLUGIN.preflight, known)
        with pytest.raises(ConnectError, match="ca /nowhere: No such file"):
            await asyncio.to_thread(PLUGIN.preflight, machine_at(url, tmp_path, ca=Path("/nowhere")))
