"""`hil-sim`: simulated machines behind real wires, for tests without hardware."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from hil_sim.clock import ScaledClock
from hil_sim.device import CommandLog, Device, Firmware, note_to_stderr
from hil_sim.faults import GRBL_NAMES, NAMES, FaultError, Faults
from hil_sim.grbl import firmware as grbl
from hil_sim.grbl import texts as grbl_texts
from hil_sim.printer import firmware as printer
from hil_sim.printer import texts
from hil_sim.printer.board import Options
from hil_sim.wire import PtyWire, TcpWire, Wire, WireError

BAD_USAGE = 2


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_USAGE, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 with one line on standard error."""
    arguments = _parser().parse_args(argv)
    try:
        match arguments.machine:
            case "octoprint":
                return _run_octoprint(arguments)
            case "cnc" | "robot":
                return _run_opcua(arguments)
            case "fault":
                return _run_fault(arguments)
            case _:
                return _run(arguments)
    except (FaultError, WireError, _LogError) as error:
        print(f"hil-sim {arguments.machine}: {error}", file=sys.stderr)
        return BAD_USAGE


class _LogError(Exception):
    """The log cannot be written; the text is for the person who asked for it."""


def _parser() -> _Parser:
    parser = _Parser(prog="hil-sim", description="Simulated machines behind real wires.")
    machines = parser.add_subparsers(
        dest="machine", required=True, metavar="MACHINE", help="printer, grbl, octoprint, cnc, robot or fault"
    )
    _printer_arguments(machines.add_parser("printer", help="a 3D printer with Marlin 2.1 on a serial line"))
    _grbl_arguments(machines.add_parser("grbl", help="a small router with grblHAL on a serial line"))
    _octoprint_arguments(machines.add_parser("octoprint", help="an OctoPrint with a simple printer behind it"))
    _opcua_arguments(machines.add_parser("cnc", help="a mill with job management over OPC UA"))
    _opcua_arguments(machines.add_parser("robot", help="a robot cell with Robotics operations over OPC UA"))
    _fault_arguments(machines.add_parser("fault", help="tell a running cnc or robot what goes wrong"))
    return parser


def _octoprint_arguments(machine: argparse.ArgumentParser) -> None:
    from hil_sim.octoprint import command  # the others need the standard library only

    command.add_arguments(machine, _address)


def _common_arguments(machine: argparse.ArgumentParser) -> None:
    wire = machine.add_mutually_exclusive_group(required=True)
    wire.add_argument("--pty", metavar="PATH", type=Path, help="a pseudo-terminal; PATH becomes a link to it")
    wire.add_argument("--tcp", metavar="HOST:PORT", type=_address, help="a TCP port; port 0 takes a free one")
    machine.add_argument("--speed", metavar="N", type=_positive, default=1.0, help="simulated seconds per real second")
    machine.add_argument("--baud", metavar="N", type=_count, help="pace the wire, in real time (default: no pace)")
    machine.add_argument("--log", metavar="FILE", type=Path, help="append each executed command to FILE")
    machine.add_argument("--reset-on-open", action="store_true", help="a host that opens the port resets the board")
    machine.add_argument("--verbose", action="store_true", help="notes on standard error")


def _printer_arguments(machine: argparse.ArgumentParser) -> None:
    _common_arguments(machine)
    machine.add_argument("--uuid", default=texts.DEFAULT_UUID, help="the UUID that M115 shows")
    machine.add_argument("--rx-bytes", metavar="N", type=_count, default=128, help="size of the receive ring")
    machine.add_argument("--advanced-ok", action="store_true", help="`ok` with line number and free places")
    machine.add_argument(
        "--emergency-parser",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="act on M108, M112, M410 and M876 as they arrive (default: yes)",
    )
    machine.add_argument("--no-prompts", action="store_true", help="built without host prompts")
    machine.add_argument("--sd-card", action="store_true", help="with an SD card, which it can print from")
    machine.add_argument("--sd-paused", action="store_true", help="a print from the card stands paused, ten minutes")
    machine.add_argument("--asks-for-more", action="store_true", help="M600 asks whether enough has come out")
    machine.add_argument("--no-thermal-protection", action="store_true", help="built without, and M115 says so")
    machine.add_argument(
        "--fault", metavar="NAME[=ARG]", action="append", default=[], help=f"may be repeated: {', '.join(NAMES)}"
    )
    machine.add_argument("--seed", metavar="N", type=int, default=0, help="for the faults that are random")


def _grbl_arguments(machine: argparse.ArgumentParser) -> None:
    _common_arguments(machine)
    machine.add_argument("--info", metavar="TEXT", default="", help="the text that $I shows, as stored with $I=TEXT")
    machine.add_argument("--plain", action="store_true", help="grbl 1.1 in the place of grblHAL")
    machine.add_argument(
        "--rx-bytes", metavar="N", type=_count, help="room of the receive ring (1023, and 128 with --plain)"
    )
    machine.add_argument("--no-bf", action="store_true", help="no `Bf:` in status reports")
    machine.add_argument("--work-position", action="store_true", help="reports tell WPos in the place of MPos")
    place = machine.add_mutually_exclusive_group()
    place.add_argument("--homed", action="store_true", help="a person has homed it before anybody connects")
    place.add_argument("--locked", action="store_true", help="it is locked when it starts, until it is homed")
    machine.add_argument(
        "--g54", metavar="X,Y,Z", type=_place, default=(0.0, 0.0, 0.0), help="where the work zero lies (mm)"
    )
    machine.add_argument(
        "--fault", metavar="NAME[=ARG]", action="append", default=[], help=f"may be repeated: {', '.join(GRBL_NAMES)}"
    )


def _opcua_arguments(machine: argparse.ArgumentParser) -> None:
    from hil_sim.opcua import command  # the others need the standard library only

    command.add_arguments(machine, _positive)
    if machine.prog.endswith("robot"):
        command.add_robot_arguments(machine)


def _fault_arguments(fault: argparse.ArgumentParser) -> None:
    fault.add_argument("control", metavar="HOST:PORT", type=_address, help="as in the machine's ready line")
    fault.add_argument("fault", metavar="NAME[=ARG]", help="see docs/simulator.md")


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _place(text: str) -> tuple[float, float, float]:
    try:
        x, y, z = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,Z in mm") from None
    return x, y, z


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _machine(arguments: argparse.Namespace, record: Callable[[float, str, str], None]) -> Firmware:
    if arguments.machine == "grbl":
        built = grbl.Options(
            info=arguments.info,
            rx_bytes=arguments.rx_bytes or (grbl_texts.PLAIN_RX_BYTES if arguments.plain else grbl_texts.RX_BYTES - 1),
            plain=arguments.plain,
            reports_buffers=not arguments.no_bf,
            reports_work=arguments.work_position,
            homed=arguments.homed,
            locked=arguments.locked,
            g54_mm=arguments.g54,
        )
        return grbl.Firmware(built, record, Faults.parse(arguments.fault, GRBL_NAMES))
    options = Options(
        uuid=arguments.uuid,
        advanced_ok=arguments.advanced_ok,
        emergency_parser=arguments.emergency_parser,
        rx_bytes=arguments.rx_bytes,
        prompts=not arguments.no_prompts,
        asks_for_more=arguments.asks_for_more,
        sd_card=arguments.sd_card or arguments.sd_paused,
        sd_paused=arguments.sd_paused,
        thermal_protection=not arguments.no_thermal_protection,
    )
    return printer.Firmware(options, Faults.parse(arguments.fault), record, arguments.seed)


def _run_octoprint(arguments: argparse.Namespace) -> int:
    from hil_sim.octoprint import command, faults

    try:
        command.run(arguments)
    except faults.FaultError as error:
        raise FaultError(str(error)) from error
    except OSError as error:
        raise _LogError(f"cannot write the log {arguments.log}: {error.strerror}") from error
    return 0


def _run_opcua(arguments: argparse.Namespace) -> int:
    from hil_sim.opcua import command

    try:
        command.run(arguments)
    except OSError as error:
        raise _LogError(f"cannot use {error.filename}: {error.strerror}") from error
    return 0


def _run_fault(arguments: argparse.Namespace) -> int:
    from hil_sim.opcua import command

    host, port = arguments.control
    try:
        if said := command.fault((host, port), arguments.fault):
            print(said)
    except OSError as error:
        raise WireError(f"no machine answers at {host}:{port}: {error.strerror or error}") from error
    return 0


def _run(arguments: argparse.Namespace) -> int:
    log: CommandLog | None = None
    if arguments.log:
        try:
            log = CommandLog(arguments.log)
        except OSError as error:
            raise _LogError(f"cannot write the log {arguments.log}: {error.strerror}") from error
    try:
        firmware = _machine(arguments, log.record if log else _unrecorded)
        wire: Wire = PtyWire(arguments.pty) if arguments.pty else TcpWire(*arguments.tcp)
        device = Device(
            firmware=firmware,
            clock=ScaledClock(arguments.speed),
            wire=wire,
            baud=arguments.baud,
            reset_on_open=arguments.reset_on_open,
            note=note_to_stderr if arguments.verbose else _unnoted,
        )
        asyncio.run(_serve(device, wire.describe()))
    finally:
        if log:
            log.close()
    return 0


def _unrecorded(_at_s: float, _number: str, _text: str) -> None:
    """No log was asked for."""


def _unnoted(_text: str) -> None:
    """No notes were asked for."""


async def _serve(device: Device, description: str) -> None:
    """Run until SIGTERM or SIGINT; SIGUSR1 presses the reset button, SIGUSR2 a router's hold and start buttons."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGTERM: stop.set,
        signal.SIGINT: stop.set,
        signal.SIGUSR1: device.press_reset,
        signal.SIGUSR2: device.press_hold,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    device.start()
    try:
        print(f"ready {description}", flush=True)
        await stop.wait()
    finally:
        device.stop()


if __name__ == "__main__":
    sys.exit(main())
