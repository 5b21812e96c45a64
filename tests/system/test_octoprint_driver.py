"""The OctoPrint driver against a simulated OctoPrint that fails, and people who print by hand."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.octoprint import PLUGIN
from edge.driver import (
    ConnectError,
    Driver,
    Finished,
    ForeignWork,
    Lost,
    MachineError,
    MachineState,
    Motion,
    NotConfirmedError,
    Outcome,
    OutcomeKind,
    Program,
    Progress,
    Run,
    StateSeen,
    Step,
    StillRunning,
)
from edge.testing import RecordingContext
from tests.helpers.octoprint import ADAS, GUESTS, SimOctoPrint, machine_at, sim_octoprint
from tests.helpers.printing import write_program

PATIENCE_S = 20.0
RUN = Run("run-1", "job-1", 1, Step("print", "fdm"), 1)
BEGUN = replace(RUN, checkpoint={"path": "edge/run-1.gcode"})
SHORT = ["G28", "G1 X10", "G1 X20"]
LONG = ["G28", "M104 S200", *(f"G1 X{10 + i % 50}" for i in range(5000))]


@contextlib.asynccontextmanager
async def opened(
    server: SimOctoPrint, folder: Path, patience_s: float = 20.0
) -> AsyncIterator[tuple[Driver, RecordingContext]]:
    context = RecordingContext(folder)
    async with asyncio.timeout(60):
        async with PLUGIN.open(machine_at(server.url, folder, patience_s=20.0), context) as driver:
            yield driver, context


@contextlib.asynccontextmanager
async def running(driver: Driver, context: RecordingContext, program: Program) -> AsyncIterator[asyncio.Task[Outcome]]:
    task = asyncio.create_task(driver.execute(RUN, program), name="run")
    try:
        await context.seen(Progress, lambda progress: progress.done > 3, PATIENCE_S)
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def state(context: RecordingContext, wanted: MachineState, words: str = "") -> None:
    await context.seen(StateSeen, lambda seen: seen.state is wanted and words in seen.detail, PATIENCE_S)


def short(folder: Path) -> Program:
    return write_program(folder / "short.gcode", SHORT)


def long(folder: Path) -> Program:
    return write_program(folder / "long.gcode", LONG)


async def test_what_comes_back_with_other_bytes_is_not_printed(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path, "--fault=corrupt-upload") as server:
        async with opened(server, tmp_path) as (driver, context):
            with pytest.raises(MachineError, match="other bytes") as caught:
                await driver.execute(RUN, short(tmp_path))
            assert caught.value.motion is Motion.NONE
            assert server.starts() == 0
            assert context.checkpoints == []
            assert server.ask("GET", "/api/files/local/edge/run-1.gcode")[0] == 404


async def test_a_print_that_is_let_go_while_it_begins_is_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, _):
            asked = asyncio.Event()
            client = driver._client  # type: ignore[attr-defined]
            start = client.start

            async def start_and_hang(path: str) -> None:
                await start(path)
                asked.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(client, "start", start_and_hang)
            task = asyncio.create_task(driver.execute(RUN, long(tmp_path)), name="run")
            await asked.wait()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await driver.detach()
            task.cancel()
            await asyncio.wait([task])
            assert server.state() == "Printing"
            assert isinstance(await driver.recover(BEGUN, long(tmp_path)), StillRunning)


async def test_a_print_that_somebody_begins_again_after_a_restart_is_not_the_run(tmp_path: Path) -> None:
    program = long(tmp_path)

    def begin_again() -> None:
        server.kill()
        server.start()
        assert server.ask("POST", "/api/files/local/edge/run-1.gcode", {"command": "select", "print": True})[0] == 204

    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, context):
            async with running(driver, context, program) as task:
                await asyncio.to_thread(begin_again)
                outcome = await task
            assert outcome.kind is OutcomeKind.UNKNOWN
            assert "ada has begun edge/run-1.gcode again" in outcome.reason
            lost = await driver.recover(BEGUN, program)
            assert isinstance(lost, Lost)
            assert not lost.same_machine, "her print is not stopped"
            assert server.state() == "Printing"


async def test_half_a_file_of_the_same_run_is_replaced(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        program = short(tmp_path)
        (tmp_path / "octoprint" / "uploads" / "edge").mkdir()
        (tmp_path / "octoprint" / "uploads" / "edge" / "run-1.gcode").write_text("G2")
        async with opened(server, tmp_path) as (driver, _):
            assert (await driver.execute(RUN, program)).kind is OutcomeKind.SUCCEEDED
        stored = tmp_path / "octoprint" / "uploads" / "edge" / "run-1.gcode"
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == program.sha256
        assert server.commands() == SHORT


@pytest.mark.parametrize(("status", "motion"), [("409", Motion.NONE), ("403", Motion.NONE), ("500", Motion.POSSIBLE)])
async def test_a_start_that_is_refused_moved_nothing_and_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, motion: Motion
) -> None:
    monkeypatch.setattr("drivers.octoprint.starting.BEGIN_S", 1.0)
    with sim_octoprint(tmp_path, f"--fault=start-status={status}") as server:
        async with opened(server, tmp_path) as (driver, context):
            with pytest.raises(MachineError) as caught:
                await driver.execute(RUN, short(tmp_path))
            assert caught.value.motion is motion
            assert isinstance(caught.value, NotConfirmedError) is (motion is Motion.POSSIBLE)
            assert server.starts() == 0
            assert context.checkpoints == [{"path": "edge/run-1.gcode"}]


async def test_a_start_whose_answer_is_lost_is_one_start(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path, "--fault=lose-start-answer") as server:
        async with opened(server, tmp_path) as (driver, _):
            assert (await driver.execute(RUN, short(tmp_path))).kind is OutcomeKind.SUCCEEDED
            assert server.starts() == 1


async def test_a_run_that_was_begun_before_is_not_begun_again(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, _):
            await driver.execute(RUN, short(tmp_path))
            with pytest.raises(NotConfirmedError, match="begun before"):
                await driver.execute(RUN, short(tmp_path))
            assert server.starts() == 1


async def test_a_silent_push_socket_is_made_up_for_by_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.octoprint.session.POLL_S", 0.2)
    with sim_octoprint(tmp_path, "--fault=silent-push") as server:
        async with opened(server, tmp_path) as (driver, context):
            async with running(driver, context, long(tmp_path)) as run:
                server.ask("POST", "/api/job", {"command": "pause", "action": "pause"})
                await state(context, MachineState.HELD, "paused by somebody in OctoPrint")
                server.ask("POST", "/api/job", {"command": "cancel"})
                outcome = await asyncio.wait_for(run, PATIENCE_S)
            assert (outcome.kind, "not why" in outcome.reason) == (OutcomeKind.FAILED, True)


async def test_a_slow_octoprint_prints_all_the_same(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path, "--fault=slow=0.4") as server:
        async with opened(server, tmp_path) as (driver, _):
            assert (await driver.execute(RUN, short(tmp_path))).kind is OutcomeKind.SUCCEEDED


async def test_a_frozen_octoprint_is_out_of_sight_and_its_print_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("drivers.octoprint.session.POLL_S", 0.2)
    monkeypatch.setattr("drivers.octoprint.session.OUT_OF_SIGHT_S", 1.0)
    monkeypatch.setattr("drivers.octoprint.client.ANSWER_S", 1.0)
    monkeypatch.setattr("drivers.octoprint.client.PING_S", 1.0)
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, context):
            async with running(driver, context, long(tmp_path)) as run:
                assert server.process is not None
                server.process.send_signal(signal.SIGSTOP)
                await state(context, MachineState.OFFLINE, "does not answer")
                server.process.send_signal(signal.SIGCONT)
                again = StateSeen(MachineState.EXECUTE)
                await context.seen(StateSeen, lambda _: context.of_kind(StateSeen)[-1] == again, PATIENCE_S)
                assert not run.done()
                await driver.stop(context.clock.mono_s() + PATIENCE_S)
                assert (await run).kind is OutcomeKind.STOPPED
            assert server.starts() == 1


async def test_pause_and_resume_are_confirmed(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, context), running(driver, context, long(tmp_path)) as run:
            deadline_s = context.clock.mono_s() + PATIENCE_S
            await driver.pause(deadline_s)
            assert server.state() == "Paused"
            await driver.pause(deadline_s)
            await state(context, MachineState.HELD, "this site")
            await driver.resume(deadline_s)
            assert server.state() == "Printing"
            await driver.stop(deadline_s)
            assert (await run).kind is OutcomeKind.STOPPED


async def test_the_printer_that_wants_filament_is_held_and_goes_on(tmp_path: Path) -> None:
    program = write_program(tmp_path / "change.gcode", ["G28", *["G1 X10"] * 10, "M600", *["G1 X20"] * 10])
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, context):
            run = asyncio.create_task(driver.execute(RUN, program), name="run")
            await state(context, MachineState.HELD, "filament")
            assert not run.done()
            server.ask("POST", "/api/job", {"command": "pause", "action": "resume"})
            assert (await asyncio.wait_for(run, PATIENCE_S)).kind is OutcomeKind.SUCCEEDED


async def test_a_firmware_error_and_a_pulled_line_fail_the_print(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, context):
            async with running(driver, context, long(tmp_path)) as run:
                server.fault("serial-error", "Thermal Runaway")
                outcome = await asyncio.wait_for(run, PATIENCE_S)
            assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, "the print failed: Thermal Runaway")
            await state(context, MachineState.STOPPED, "not connected to its printer")
            server.ask("POST", "/api/connection", {"command": "connect"})
            await context.seen(
                StateSeen, lambda _: context.of_kind(StateSeen)[-1].state is MachineState.IDLE, PATIENCE_S
            )


@pytest.mark.parametrize(
    ("fault", "words"), [("restart", "as after a restart"), ("lose-files", "no longer in OctoPrint")]
)
async def test_without_a_record_the_outcome_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setattr("drivers.octoprint.driver.RECORD_S", 1.0)
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, context):
            async with running(driver, context, long(tmp_path)) as run:
                server.fault(fault)
                if fault == "lose-files":
                    server.fault("restart")
                outcome = await asyncio.wait_for(run, PATIENCE_S)
            assert outcome.kind is OutcomeKind.UNKNOWN
            assert words in outcome.reason
            # The one that is asked to make it safe switches off what the dead OctoPrint has left hot.
            assert server.ask("GET", "/api/printer")[1]["temperature"]["tool0"]["target"] == 200
            await driver.stop(context.clock.mono_s() + PATIENCE_S)
            assert server.ask("GET", "/api/printer")[1]["temperature"]["tool0"]["target"] == 0


@pytest.mark.parametrize("newer", [False, True])
async def test_after_a_restart_of_ours_the_print_is_found_by_its_run(tmp_path: Path, newer: bool) -> None:
    with sim_octoprint(tmp_path, "--rate=100", *(["--newer"] if newer else [])) as server:
        program = write_program(tmp_path / "p.gcode", ["G28", *["G1 X10"] * 200])
        async with opened(server, tmp_path) as (driver, context), running(driver, context, program) as run:
            await driver.detach()
            run.cancel()
            await asyncio.wait([run])
        assert server.state() == "Printing"
        async with opened(server, tmp_path) as (driver, context):
            assert await driver.recover(BEGUN, program) == StillRunning()
            outcome = await driver.execute(BEGUN, program, StillRunning())
            assert outcome.kind is OutcomeKind.SUCCEEDED
            assert context.of_kind(Progress)[-1] == Progress(201, 201)
            assert context.of_kind(ForeignWork) == []
        async with opened(server, tmp_path) as (driver, _):
            found = await driver.recover(BEGUN, program)
            assert isinstance(found, Finished)
            assert found.outcome.kind is OutcomeKind.SUCCEEDED
        assert server.starts() == 1


async def test_a_run_that_left_nothing_was_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drivers.octoprint.driver.RECORD_S", 0.5)
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, _):
            found = await driver.recover(RUN, short(tmp_path))
            assert isinstance(found, Finished)
            assert (found.outcome.kind, found.outcome.motion) == (OutcomeKind.FAILED, Motion.NONE)
            lost = await driver.recover(BEGUN, short(tmp_path))
            assert isinstance(lost, Lost)
            assert "no longer in OctoPrint" in lost.reason


async def test_somebody_elses_print_is_told_left_alone_and_to_be_taken_off(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        async with opened(server, tmp_path) as (driver, context):
            await driver.execute(RUN, short(tmp_path))
            uploads = tmp_path / "octoprint" / "uploads"
            (uploads / "cup.gcode").write_text("\n".join(LONG))
            server.ask("POST", "/api/files/local/cup.gcode", {"command": "select", "print": True})
            await state(context, MachineState.EXECUTE, "ada prints cup.gcode in OctoPrint")
            again = replace(RUN, run_id="run-2")
            with pytest.raises(MachineError, match=r"ada prints cup\.gcode") as caught:
                await driver.execute(again, short(tmp_path))
            assert caught.value.motion is Motion.NONE
            with pytest.raises(NotConfirmedError, match="left alone"):
                await driver.stop(context.clock.mono_s() + PATIENCE_S)
            server.wait_state("Printing")
            server.ask("POST", "/api/job", {"command": "cancel"})
            server.wait_state("Operational")
            assert [work.detail for work in context.of_kind(ForeignWork)] == ["ada printed cup.gcode in OctoPrint"]
            assert (await driver.execute(replace(RUN, run_id="run-4"), short(tmp_path))).kind is OutcomeKind.SUCCEEDED


async def test_our_file_printed_once_more_by_hand_is_somebody_elses_print(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        program = write_program(tmp_path / "p.gcode", ["G28", *["G1 X10"] * 60])
        async with opened(server, tmp_path) as (driver, _):
            assert (await driver.execute(RUN, program)).kind is OutcomeKind.SUCCEEDED
        server.ask("POST", "/api/files/local/edge/run-1.gcode", {"command": "select", "print": True})
        async with opened(server, tmp_path) as (driver, context):
            found = await driver.recover(BEGUN, program)
            assert isinstance(found, Finished)
            assert found.outcome.kind is OutcomeKind.SUCCEEDED
            words = "ada printed edge/run-1.gcode in OctoPrint"
            await context.seen(ForeignWork, lambda work: work.detail == words, PATIENCE_S)


async def test_files_of_earlier_runs_go_and_those_of_people_stay(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        machine = machine_at(server.url, tmp_path, keep_files=1)
        folder = tmp_path / "octoprint" / "uploads" / "edge"
        async with PLUGIN.open(machine, RecordingContext(tmp_path)) as driver:
            await driver.execute(RUN, short(tmp_path))
            (folder / "by-hand.gcode").write_text("G28\n")
            for number in (2, 3):
                await driver.execute(replace(RUN, run_id=f"run-{number}"), short(tmp_path))
        kept = {file.name for file in folder.iterdir()}
        assert kept >= {"by-hand.gcode", "run-3.gcode"}
        assert len(kept) == 3


async def test_safe_mode_takes_no_work(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path, "--fault=safe-mode=incomplete_startup") as server:
        async with opened(server, tmp_path) as (driver, context):
            await state(context, MachineState.STOPPED, "safe mode (incomplete_startup)")
            with pytest.raises(MachineError, match="safe mode"):
                await driver.execute(RUN, short(tmp_path))
            assert server.starts() == 0


def refusal(server: SimOctoPrint, folder: Path, key: str = "", **connection: str) -> str:
    """What `edge check` says."""
    machine = machine_at(connection.pop("url", server.url), folder, **connection)
    if key:
        machine.connection.api_key_file.write_text(key)
    with pytest.raises(ConnectError) as caught:
        PLUGIN.preflight(machine)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_what_is_wrong_with_the_way_is_said_in_one_line(tmp_path: Path) -> None:
    with sim_octoprint(tmp_path) as server:
        PLUGIN.preflight(machine_at(server.url, tmp_path))
        assert "does not know this key" in refusal(server, tmp_path, key="wrong")
        assert "guest lacks CONTROL, FILES_DELETE" in refusal(server, tmp_path, key=GUESTS)
        machine_at(server.url, tmp_path).connection.api_key_file.write_text(ADAS)
        assert "nobody answers at http://127.0.0.1:9: " in refusal(server, tmp_path, url="http://127.0.0.1:9")
        assert "is no OctoPrint, or not at this address" in refusal(server, tmp_path, url=f"{server.url}/octo")
        secure = server.url.replace("http:", "https:")
        assert "TLS: " in refusal(server, tmp_path, url=secure)
        server.fault("version", "1.9.3")
        assert "is OctoPrint 1.9.3; 1.11 or newer is needed" in refusal(server, tmp_path)
        server.fault("version")
        server.fault("safe-mode", "flag")
        assert "OctoPrint is in safe mode (flag)" in refusal(server, tmp_path)
        server.fault("safe-mode")
        server.fault("status", "401")
        assert "refuses this key" in refusal(server, tmp_path)
        server.fault("status", "500")
        assert "as the fault wants it (HTTP 500)" in refusal(server, tmp_path)
        server.fault("status")
        server.fault("serial-error", "MINTEMP")
        assert "not connected to its printer (Offline after error: MINTEMP)" in refusal(server, tmp_path)
        (tmp_path / "octoprint.key").chmod(0o644)
        assert "others can read it (mode 0644)" in refusal(server, tmp_path)
