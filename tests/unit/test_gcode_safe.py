"""`make_safe` of the gcode plug-in: without a daemon, a journal or a running loop."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import time
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN
from drivers.gcode.config import Connection
from edge.driver import ConnectError, IdentityError, NotConfirmedError
from tests.helpers.printing import bench_machine
from tests.helpers.sim import SimPrinter, sim_printer

OFF = ["M104 S0", "M140 S0", "M107", "M400"]
PATIENCE_S = 60.0


def make_safe(printer: SimPrinter, within_s: float = PATIENCE_S) -> str:
    return PLUGIN.make_safe(bench_machine(printer), time.monotonic() + within_s)


@pytest.mark.parametrize("tcp", [True, False])
def test_it_switches_off_without_a_move_and_without_a_reset(tmp_path: Path, tcp: bool) -> None:
    with sim_printer(tmp_path, tcp=tcp) as printer:
        said = make_safe(printer)
        assert re.fullmatch(r"heaters and fans off, B at \d+ degC, T at \d+ degC", said)
        assert printer.macros() == OFF
        assert make_safe(printer) == said, "again, from where the counter stands now"
        assert printer.macros() == OFF + OFF
        assert not any(text.startswith(("G0", "G1", "G28")) for _, text in printer.commands())


def test_a_printer_that_waits_until_it_is_hot_is_switched_off_as_soon_as_it_listens(tmp_path: Path) -> None:
    with sim_printer(tmp_path, speed=100) as printer:
        port = os.open(printer.place, os.O_RDWR | os.O_NOCTTY)
        os.write(port, b"M104 S200\nM190 S60\n")
        os.close(port)
        assert re.search(r"T at (1[89]|2)\d", make_safe(printer)), "hot, and with a target of 0"
        assert printer.macros() == OFF


def test_another_machine_is_left_alone(tmp_path: Path) -> None:
    with sim_printer(tmp_path) as printer:
        machine = bench_machine(printer)
        wanted = Connection(**machine.connection.model_dump(exclude={"uuid"}), uuid="another")
        with pytest.raises(IdentityError, match="must be another"):
            PLUGIN.make_safe(dataclasses.replace(machine, connection=wanted), time.monotonic() + PATIENCE_S)
        assert printer.macros() == []


def test_a_printer_that_is_silent_until_the_deadline_has_not_confirmed(tmp_path: Path) -> None:
    with sim_printer(tmp_path) as printer:
        printer.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(NotConfirmedError, match="has not confirmed in time"):
                make_safe(printer, within_s=0.2)
        finally:
            printer.process.send_signal(signal.SIGCONT)


def test_a_port_that_is_not_there_is_said(tmp_path: Path) -> None:
    with sim_printer(tmp_path) as printer:
        machine = bench_machine(printer)
    with pytest.raises(ConnectError, match="does not exist"):
        PLUGIN.make_safe(machine, time.monotonic() + PATIENCE_S)
