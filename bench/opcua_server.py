"""A server whose values change all the time: ``python -m bench.opcua_server FOLDER VALUES EVERY_S SECURE``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from asyncua import Server, ua

from hil_sim.opcua.security import own_certificate

URI = "urn:bench:server"


async def serve(folder: Path, count: int, every_s: float, *, secure: bool) -> None:
    """Say the port, and go on until killed."""
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    await server.set_application_uri(URI)
    policy = ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt if secure else ua.SecurityPolicyType.NoSecurity
    server.set_security_policy([policy])
    if secure:
        certificate, key = own_certificate(folder, URI)
        await server.load_certificate(certificate)
        await server.load_private_key(key)
    index = await server.register_namespace("urn:bench")
    machine = await server.nodes.objects.add_object(index, "Machine")
    for name in ("State", "S"):
        await machine.add_variable(index, name, ua.Variant(0, ua.VariantType.Int32))
    await machine.add_variable(index, "Program", "")
    values = [await machine.add_variable(index, f"V{number}", 0.0) for number in range(count)]
    async with server:
        print(server.bserver.port if server.bserver else 0, flush=True)
        tick = 0.0
        while True:
            tick += 1.0
            for value in values:
                await value.write_value(tick)
            await asyncio.sleep(every_s)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), secure=sys.argv[4] == "1"))
