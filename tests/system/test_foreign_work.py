"""Somebody works at a serial printer that edge drives: it is told, kept out of, and cleared by a person."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from drivers.gcode import PLUGIN, resting
from edge.driver import ForeignWork, Lost, MachineError, MachineState, Motion, NotConfirmedError, OutcomeKind, StateSeen
from edge.testing.context import RecordingContext
from tests.helpers.printing import RUN, bench_machine, program_of, write_program
from tests.helpers.sim import sim_printer
from tests.helpers.site import SHORT, SiteFolder, starts, until

PATIENCE_S = 60.0
PROGRAM = ["G28", "G1 X10 F6000", "G1 X20"]
CARD = ("--sd-card", "--fault", "sd-print-after=4")
"""Somebody starts a print right after the driver has connected: after M115, M155, M27 and M27 C."""


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "POLL_S", 0.1)


async def is_idle_again(context: RecordingContext) -> None:
    """Wait until that is the newest that was told."""
    await context.seen(StateSeen, lambda _: context.of_kind(StateSeen)[-1].state is MachineState.IDLE, PATIENCE_S)


async def test_nothing_is_begun_while_somebody_prints_from_the_card(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", PROGRAM)
    context = RecordingContext(tmp_path)
    with sim_printer(tmp_path, *CARD, speed=60.0) as printer:
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            words = "somebody prints CUP~1.GCO from the SD card"
            await context.seen(
                StateSeen, lambda seen: (seen.state, seen.detail) == (MachineState.EXECUTE, words), PATIENCE_S
            )
            with pytest.raises(MachineError, match=rf"not begun, for the printer is at work: {words}") as caught:
                await driver.execute(RUN, program)
            assert caught.value.motion is Motion.NONE
            assert printer.program() == []
            assert printer.modes() == []
            with pytest.raises(NotConfirmedError, match=f"switched off, but {words}"):
                await driver.stop(context.clock.mono_s() + PATIENCE_S)
            assert await driver.recover(RUN, program) == Lost(
                f"the printer is at other work: {words}", same_machine=False
            )
            await is_idle_again(context)
            (work,) = context.of_kind(ForeignWork)
            assert work.detail == "somebody printed CUP~1.GCO from the printer's SD card"
            assert (await driver.execute(RUN, program)).kind is OutcomeKind.SUCCEEDED
            assert program_of(printer) == PROGRAM


async def test_a_start_asks_the_card_even_if_nothing_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "POLL_S", PATIENCE_S)
    program = write_program(tmp_path / "program.gcode", PROGRAM)
    with sim_printer(tmp_path, "--sd-card", "--fault", "sd-print-after=4", speed=60.0) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            with pytest.raises(MachineError, match="from the SD card"):
                await driver.execute(RUN, program)
            assert len(context.of_kind(ForeignWork)) == 1
            assert printer.program() == []


async def test_a_print_that_stood_paused_before_anybody_connected_is_found(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.gcode", PROGRAM)
    context = RecordingContext(tmp_path)
    with sim_printer(tmp_path, "--sd-paused", speed=60.0) as printer:
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            with pytest.raises(
                MachineError, match=r"CUP~1\.GCO of the SD card is open, so a print of it may"
            ) as caught:
                await driver.execute(RUN, program)
            assert caught.value.motion is Motion.NONE
            assert (printer.program(), printer.modes()) == ([], [])
            assert context.of_kind(StateSeen)[-1].state is MachineState.EXECUTE
            await is_idle_again(context)
            (work,) = context.of_kind(ForeignWork)
            assert work.detail == "somebody has begun CUP~1.GCO from the printer's SD card"
            assert (await driver.execute(RUN, program)).kind is OutcomeKind.SUCCEEDED
            assert program_of(printer) == PROGRAM


async def test_a_nozzle_that_is_heated_at_the_display_is_told_and_what_a_program_leaves_hot_is_not(
    tmp_path: Path,
) -> None:
    program = write_program(tmp_path / "program.gcode", [*PROGRAM, "M104 S180"])
    with sim_printer(tmp_path, speed=60.0) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            assert (await driver.execute(RUN, program)).kind is OutcomeKind.SUCCEEDED
            await driver._device.look_at_heaters()  # type: ignore[attr-defined]
            assert context.of_kind(ForeignWork) == []
            for target in ("0", "215"):
                await driver._session.ask(f"M104 S{target}")  # type: ignore[attr-defined]  # a hand at the display
                for _ in range(2):
                    await driver._device.look_at_heaters()  # type: ignore[attr-defined]
            (work,) = context.of_kind(ForeignWork)
            assert "heated the nozzle to 215 degC" in work.detail


@pytest.mark.parametrize("asked", ["G4 S20", "M0 S20"])
async def test_a_printer_that_is_busy_for_others_begins_nothing_and_is_free_when_it_is_quiet(
    tmp_path: Path, asked: str
) -> None:
    program = write_program(tmp_path / "program.gcode", PROGRAM)
    with sim_printer(tmp_path, speed=5.0) as printer:
        context = RecordingContext(tmp_path)
        async with PLUGIN.open(bench_machine(printer), context) as driver:
            levelling = asyncio.create_task(driver._session.ask(asked), name="a hand at the display")  # type: ignore[attr-defined]
            words = "busy with what somebody asked for at the printer"
            await context.seen(
                StateSeen, lambda seen: (seen.state, seen.detail) == (MachineState.EXECUTE, words), PATIENCE_S
            )
            with pytest.raises(MachineError, match=f"at work: {words}"):
                await driver.execute(RUN, program)
            await levelling
            assert context.of_kind(ForeignWork) == []
            await is_idle_again(context)


def test_a_site_keeps_its_orders_back_until_a_person_has_cleared_what_others_made(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path)
    with sim_printer(tmp_path, *CARD, speed=60.0) as printer:
        site.start()
        try:
            told = site.wait_event("foreign_work")
            assert told["body"]["detail"] == "somebody printed CUP~1.GCO from the printer's SD card"
            job_id = str(site.submit(site.bundle(SHORT))["job_id"])
            # It heats at once, and is known to print when the card is asked for the next time.
            until(lambda: site.live()["machines"][0]["state"] == "EXECUTE")
            until(lambda: site.live()["machines"][0]["state"] == "IDLE")
            assert "CUP~1.GCO from the printer's SD card" in site.edge("status").stdout.replace("\n   ", "")
            assert starts(printer) == 0
            assert "needs_clearing" in {wait["code"] for wait in site.json("why", job_id)["waits"]}
            site.edge("machine", "clear", "prn-1")
            assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
            assert len(site.events("foreign_work")) == 1
        finally:
            assert site.daemon is not None
            site.daemon.end()
