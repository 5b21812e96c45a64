"""A made-up controller without companion model, as a process: the nodes of firmware_profiles/example-mapped.toml.

``python -m tests.helpers.mapped_server [TYPE]``: RunTag is a whole number of that type (``Int16`` …), or a text.

A program ``run-N`` takes N ticks of 50 ms; ``fail-N`` fails at its end. Commands on standard input: ``mode N``,
``estop 0|1``, ``forget`` (the power was away), ``ticks``, ``starts``; each is answered by one line.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from asyncua import Server, ua

TICK_S = 0.05
IDLE, RUNNING, HELD, ENDED, FAILED = range(5)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main() -> None:
    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    await server.register_namespace("urn:example:other")
    index = await server.register_namespace("urn:example:plc")
    machine = await server.nodes.objects.add_object(index, "Machine")
    info = await machine.add_object(index, "Info")
    await info.add_variable(index, "Model", "Mapped 1")
    await info.add_variable(index, "SerialNumber", "M-1")
    nodes: dict[str, Any] = {}
    tag = ua.Variant(0, ua.VariantType[sys.argv[1]]) if sys.argv[1:] else ua.Variant("")
    starting = {"Program": "", "RunTag": tag, "Start": False, "Stop": False, "Hold": False, "Continue": False}
    for name, value in {**starting, "Estop": False, "SpindleLoad": 0.0}.items():
        nodes[name] = await machine.add_variable(index, name, value)
    for name, number in {"State": IDLE, "Cycles": 0, "Mode": 1, "Line": 0, "Lines": 0}.items():
        nodes[name] = await machine.add_variable(index, name, ua.Variant(number, ua.VariantType.Int32))
    for node in nodes.values():
        await node.set_writable()
    left, ticks, starts = 0, 0, 0

    async def show(name: str, number: int) -> None:
        await nodes[name].write_value(ua.Variant(number, ua.VariantType.Int32))

    async with server:
        port = server.bserver.port if server.bserver is not None else 0
        say(f"ready opcua opc.tcp://127.0.0.1:{port}/ control -")
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        reading = asyncio.create_task(reader.readline())
        before = dict.fromkeys(("Start", "Stop", "Hold", "Continue"), False)
        while True:
            await asyncio.wait([reading], timeout=TICK_S)
            if reading.done():
                line = reading.result().decode()
                if not line:
                    return
                match line.split():
                    case ["mode", number]:
                        await show("Mode", int(number))
                    case ["estop", number]:
                        await nodes["Estop"].write_value(number == "1")
                    case ["forget"]:
                        left = 0
                        await nodes["RunTag"].write_value(tag)
                        await show("State", IDLE)
                    case ["strange"]:
                        await show("State", 77)
                say(str({"starts": starts}.get(line.strip(), ticks)))
                reading = asyncio.create_task(reader.readline())
            now = {name: bool(await nodes[name].read_value()) for name in before}
            edges = {name for name in now if now[name] and not before[name]}
            before = now
            state = int(await nodes["State"].read_value())
            program = str(await nodes["Program"].read_value())
            if "Start" in edges and state not in (RUNNING, HELD):
                left, starts = int(program.rpartition("-")[2]), starts + 1
                await show("Lines", left)
                await show("State", RUNNING)
            elif "Stop" in edges and state in (RUNNING, HELD):
                await show("State", IDLE)
            elif "Hold" in edges and state == RUNNING:
                await show("State", HELD)
            elif "Continue" in edges and state == HELD:
                await show("State", RUNNING)
            elif state == RUNNING:
                left, ticks = left - 1, ticks + 1
                await nodes["SpindleLoad"].write_value(float(ticks))
                await show("Line", int(await nodes["Lines"].read_value()) - left)
                if left <= 0:
                    failed = program.startswith("fail")
                    await show("State", FAILED if failed else ENDED)
                    if not failed:
                        await show("Cycles", int(await nodes["Cycles"].read_value()) + 1)


if __name__ == "__main__":
    asyncio.run(main())
