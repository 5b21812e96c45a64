"""Many machines over OPC UA in one process: CPU and memory; and how soon a pause is confirmed."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MACHINES, VALUES, EVERY_S, LASTS_S, PAUSES = 50, 20, 0.5, 20.0, 30

_PROFILE = """\
dialect = "opcua-mapped"
summary = "bench"
only_if_named = true
programs = "named"
namespaces = {{plc = "urn:bench"}}
machine = {{root = "plc:Machine"}}
[mapped]
state = "plc:State"
states = {{idle = [0], running = [1]}}
program = "plc:Program"
start = {{node = "plc:S"}}
stop = {{node = "plc:S"}}
[values]
{values}
"""


def report() -> list[str]:
    """The figures, as lines."""
    lines = [f"OPC UA: {MACHINES} machines with {VALUES} values each every {EVERY_S:g} s, over None, in one process"]
    command = [sys.executable, "-m", "bench.opcua"]
    measured = subprocess.run([*command, "load"], capture_output=True, text=True, timeout=300, check=False)
    lines += [f"  {line}" for line in (measured.stdout or measured.stderr[-500:]).splitlines()]
    measured = subprocess.run([*command, "latency"], capture_output=True, text=True, timeout=300, check=False)
    return lines + [f"  {line}" for line in (measured.stdout or measured.stderr[-500:]).splitlines()]


async def _serve() -> None:
    from asyncua import Server, ua

    server = Server()
    await server.init()
    server.set_endpoint("opc.tcp://127.0.0.1:0/")
    index = await server.register_namespace("urn:bench")
    machine = await server.nodes.objects.add_object(index, "Machine")
    for name in ("State", "S"):
        await machine.add_variable(index, name, ua.Variant(0, ua.VariantType.Int32))
    await machine.add_variable(index, "Program", "")
    values = [await machine.add_variable(index, f"V{number}", 0.0) for number in range(VALUES)]
    async with server:
        print(server.bserver.port if server.bserver else 0, flush=True)
        tick = 0.0
        while True:
            tick += 1.0
            for value in values:
                await value.write_value(tick)
            await asyncio.sleep(EVERY_S)


async def _load() -> None:
    from drivers.opcua import JOBCONTROL
    from edge.driver import Machine, Reading
    from edge.testing import RecordingContext

    with tempfile.TemporaryDirectory() as place, _server() as port:
        folder = Path(place)
        rows = "\n".join(f'v{number}.node = "plc:V{number}"' for number in range(VALUES))
        (folder / "bench.toml").write_text(_PROFILE.format(values=rows))
        connection = {"endpoint": f"opc.tcp://127.0.0.1:{port}/", "security": "None"}
        limits = JOBCONTROL.limits.model_validate({"checked_by": "controller"})

        def machine(number: int) -> Machine[Any, Any]:
            way = JOBCONTROL.connection.model_validate(connection)
            return Machine(f"m-{number}", "opcua", "bench", ("mill",), way, limits, profiles_dir=folder)

        async with contextlib.AsyncExitStack() as stack:
            contexts = []
            for number in range(MACHINES):
                contexts.append(RecordingContext(folder))
                await stack.enter_async_context(JOBCONTROL.open(machine(number), contexts[-1]))
            for context in contexts:
                context.observations.clear()
            began_s, cpu_s = time.monotonic(), time.process_time()
            await asyncio.sleep(LASTS_S)
            share = (time.process_time() - cpu_s) / (time.monotonic() - began_s)
            seen = sum(len(context.of_kind(Reading)) for context in contexts)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rate = f"{seen / LASTS_S:.0f} values/s"
        print(f"{100 * share:.0f} % of a core, {peak:.0f} MiB at most, {rate} (limit: 40 %, 130 MiB)")


async def _latency() -> None:
    from edge.driver import Progress, Run, Step
    from edge.testing import RecordingContext
    from tests.helpers.opcua import machine_of, plugin_of, program_of, sim_server

    with tempfile.TemporaryDirectory() as place, sim_server("cnc", speed=1.0) as server:
        context = RecordingContext(Path(place))
        lines = ["G21 G90", *(f"G1 X{10 + 400 * (i % 2)} F3000" for i in range(200)), "M30"]
        program = program_of(Path(place) / "long.nc", lines)
        async with plugin_of("cnc").open(machine_of(server), context) as driver:
            run = Run("run-1", "job-1", 1, Step("step-1", "mill"), 1)
            running = asyncio.create_task(driver.execute(run, program))
            await context.seen(Progress, lambda progress: progress.done > 0, 60.0)
            took_s = []
            for number in range(2 * PAUSES):
                began_s = time.monotonic()
                verb = driver.resume if number % 2 else driver.pause
                await verb(context.clock.mono_s() + 30.0)
                took_s.append(time.monotonic() - began_s)
            await driver.stop(context.clock.mono_s() + 30.0)
            await running
        worst = sorted(took_s)[int(0.99 * len(took_s))]
        print(
            f"pause or resume, asked to confirmed: median {1000 * statistics.median(took_s):.0f} ms, "
            f"p99 {1000 * worst:.0f} ms of {len(took_s)} (limit: 500 ms)"
        )


@contextlib.contextmanager
def _server() -> Any:
    with subprocess.Popen(
        [sys.executable, "-m", "bench.opcua", "serve"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


if __name__ == "__main__":
    asyncio.run({"serve": _serve, "load": _load, "latency": _latency}[sys.argv[1]]())
