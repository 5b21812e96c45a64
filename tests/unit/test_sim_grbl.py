"""The simulated grblHAL: its texts against what a real one was seen to say, and its rules."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_sim_process import DEADLINE_S, read_until, simulator, tcp

from hil_sim.grbl.firmware import Options
from hil_sim.grbl.motion import DECELERATION_S, Motion
from hil_sim.grbl.texts import PLANNER_BLOCKS
from tests.helpers.grbl_rig import GrblRig

LOCKED = "[MSG:'$H'|'$X' to unlock]"
BANNER = ["", "GrblHAL 1.1f ['$' or '$HELP' for help]"]


def homed(options: Options | None = None) -> GrblRig:
    rig = GrblRig(options)
    assert rig.send("$H\n") == []
    assert rig.state() == "Home"
    assert rig.wait(5.0) == ["ok"]
    return rig


# -- what a real one was seen to say


def test_the_texts_are_those_of_the_real_one() -> None:
    rig = GrblRig()
    assert rig.banner.split("\r\n")[:-1] == BANNER
    assert rig.send("?")[0].startswith("<Idle|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0")
    assert rig.send("?") == ["<Idle|MPos:0.000,0.000,0.000|Bf:100,1023|FS:0,0|Ov:100,100,100|A:|H:0>"]


def test_fields_come_and_go() -> None:
    rig = GrblRig()
    names = [re.findall(r"\|(\w+):", rig.send("?")[0]) for _ in range(11)]
    assert names[0] == names[10] == ["MPos", "Bf", "FS", "WCO"]
    assert names[1] == ["MPos", "Bf", "FS", "Ov", "A", "H"]
    assert names[2] == ["MPos", "Bf", "FS"]
    assert "Bf" not in GrblRig(Options(reports_buffers=False)).send("?")[0]


@pytest.mark.parametrize("text", ["\n", ";comment\n", "(comment)\n", "\r\n", "   \n"])
def test_empty_and_comment_lines_get_ok(text: str) -> None:
    rig = GrblRig()
    assert rig.send(text) == ["ok"]
    assert rig.executed() == []


def test_numbered_lines_are_refused() -> None:
    assert GrblRig().send("N1 G0 X1*22\n") == ["error:20"]


def test_a_reset_in_motion_is_an_alarm_that_locks_until_x() -> None:
    rig = GrblRig()
    rig.send("G1 X100 F600\n")
    assert rig.send("\x18") == ["ALARM:3", *BANNER, LOCKED]
    assert rig.state() == "Alarm"
    assert rig.send("G0 X1\n") == ["error:9"]
    assert rig.send("$X\n") == ["[MSG:Caution: Unlocked]", "ok"]
    assert rig.send("G0 X1\n") == ["ok"]


def test_hold_and_resume_are_states() -> None:
    rig = GrblRig()
    rig.send("G1 X10 F600\n")
    assert rig.state() == "Run"
    rig.send("!")
    assert rig.state() == "Hold:1"
    rig.wait(DECELERATION_S)
    assert rig.state() == "Hold:0"
    assert rig.send("G0 X20\n") == []
    rig.wait(100.0)
    assert rig.state() == "Hold:0"
    assert rig.send("~") == ["ok"]
    assert rig.state() == "Run"
    rig.wait(10.0)
    assert rig.send("?")[0].startswith("<Idle|MPos:20.000,")


# -- rules


def test_a_report_may_say_idle_although_moves_wait() -> None:
    rig = GrblRig()
    assert rig.send("G1 X10 F600\n?")[1].startswith("<Idle|")
    assert rig.state() == "Run"


def test_a_reset_at_standstill_keeps_the_position_and_drops_what_was_sent() -> None:
    rig = GrblRig()
    rig.send("G1 X10 F600\nM0\nG0 X99\n")
    rig.wait(20.0)
    assert rig.state() == "Hold:0"
    assert rig.send("\x18") == BANNER
    assert rig.send("?")[0].startswith("<Idle|MPos:10.000,")
    assert rig.executed() == ["G1 X10 F600", "M0"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("G1 X1", 22),
        ("G999", 20),
        ("Q1", 20),
        ("5", 1),
        ("X", 2),
        ("G0 G1 X1", 21),
        ("G0 X1 X2", 25),
        ("G4", 28),
        ("G92", 26),
        ("G2", 26),
        ("G92 G1 X1", 24),
        ("G80 X1", 31),
        ("G0 X1 R2", 36),
        ("F-1", 4),
        ("G2 X1 F1", 35),
        ("G2 Z1 F1 I1", 32),
        ("G2 X10 R1 F1", 34),
        ("G2 X0 R1 F1", 33),
        ("G2 X9 I1 F1", 33),
        ("G53 G2 X2 I1 F1", 30),
        ("$Q", 3),
        ("G0 X" + "1" * 300, 11),
    ],
)
def test_what_is_wrong_has_its_number_and_is_not_carried_out(line: str, code: int) -> None:
    rig = GrblRig()
    assert rig.send(f"{line}\n") == [f"error:{code}"]
    assert rig.executed() == []


def test_after_an_error_nothing_is_carried_out_until_somebody_looks() -> None:
    rig = GrblRig()
    assert rig.send("G999\nG0 X1\n") == ["error:20", "error:20"]
    assert rig.send("\nG0 X1\n") == ["ok", "ok"]
    assert rig.send("G999\n$\nG0 X2\n")[-2:] == ["ok", "ok"]
    assert rig.executed() == ["G0 X1", "G0 X2"]


@pytest.mark.parametrize(
    ("lines", "seconds", "place"),
    [
        ("G1 X10 F600\n", 1.0, "10.000,0.000,0.000"),
        ("G20 G1 X1 F10\n", 6.0, "25.400,0.000,0.000"),
        ("G91 G0 X5\nX5\n", 1.0, "10.000,0.000,0.000"),
        ("G0 X5\nG92 X0\nG0 X5\n", 1.0, "10.000,0.000,0.000"),
        ("G92 X5\nG92.1\nG0 X5\n", 1.0, "5.000,0.000,0.000"),
        ("G92 X5\nG53 G0 X7\n", 1.0, "7.000,0.000,0.000"),
        ("G0 X5\nG28\n", 1.0, "0.000,0.000,0.000"),
        ("G2 X10 I5 F600\n", 2.0, "10.000,0.000,0.000"),
        ("G3 X10 R5 F600\n", 2.0, "10.000,0.000,0.000"),
        ("G3 X10 R-6 F600\n", 4.0, "10.000,0.000,0.000"),
        ("G17 G21 G40 G49 G54 G80 G90 G94\nG0 Z3\n", 1.0, "0.000,0.000,3.000"),
    ],
)
def test_moves_end_where_they_should_and_take_their_time(lines: str, seconds: float, place: str) -> None:
    rig = GrblRig()
    assert set(rig.send(lines)) == {"ok"}
    assert rig.state() == "Run"
    rig.wait(seconds + 0.5)
    assert rig.send("?")[0].startswith(f"<Idle|MPos:{place}")


def test_a_full_planner_holds_back_the_ok() -> None:
    rig = GrblRig()
    oks = rig.send("".join(f"G1 X{i + 1} F60\n" for i in range(PLANNER_BLOCKS + 1)))
    assert len(oks) == PLANNER_BLOCKS
    assert rig.wait(2.0) == ["ok"]


def test_a_dwell_and_the_spindle_wait_for_standstill() -> None:
    rig = GrblRig()
    assert rig.send("G1 X10 F600\nG4 P2\nM3 S1000\nM7\nM8\n") == ["ok"]
    assert rig.wait(1.5) == []
    assert rig.state() == "Idle"
    assert rig.wait(2.0) == ["ok"] * 4
    assert rig.send("$G\n") == ["[GC:G1 G54 G17 G21 G90 G94 M3 M7 M8 T0 F600 S1000]", "ok"]
    assert "|FS:0,1000|" in rig.send("?")[0]
    assert any("|A:SFM|" in rig.send("?")[0] for _ in range(10))
    assert rig.send("M30\n") == ["[MSG:Pgm End]", "ok"]
    assert rig.send("$G\n")[0] == "[GC:G1 G54 G17 G21 G90 G94 M5 M9 T0 F600 S1000]"


def test_a_full_ring_loses_bytes() -> None:
    rig = GrblRig(Options(rx_bytes=10))
    rig.send("G4 P1\nG0 X12345678\n")
    rig.wait(2.0)
    assert rig.send("\n") == ["ok"]
    assert rig.executed() == ["G4 P1", "G0 X123456"]


def test_a_target_outside_of_the_travel_stops_everything_until_a_reset() -> None:
    rig = homed()
    assert rig.send("G0 X301\nG0 X1\n") == ["ALARM:2", "[MSG:Reset to continue]", "error:9"]
    assert rig.send("$X\n") == ["error:79"]
    assert rig.send("\x18") == [*BANNER, LOCKED]
    assert rig.send("$X\nG0 X300\n")[-1] == "ok"


def test_homing_ends_an_alarm_and_a_reset_in_homing_is_one() -> None:
    rig = GrblRig()
    rig.send("G1 X50 F6000\n")
    rig.wait(0.2)
    rig.send("\x18")
    assert rig.send("$H\n") == []
    assert rig.send("\x18") == ["ALARM:6", *BANNER, LOCKED]
    rig.send("$H\n")
    assert rig.wait(10.0) == ["ok"]
    assert rig.send("?")[0].startswith("<Idle|MPos:0.000,0.000,0.000")


def test_settings_and_help() -> None:
    rig = GrblRig(Options(info="router 1"))
    assert rig.send("$I\n")[0] == "[VER:1.1f.20260817:router 1]"
    assert "$130=300.000" in rig.send("$$\n")
    assert rig.send("$\n")[0].startswith("[HLP:")
    rig.send("G1 X10 F60\n")
    assert rig.send("$$\n") == ["error:8"]
    assert rig.send("$\n")[-1] == "ok"


def test_a_hold_between_two_lines_keeps_the_second_back() -> None:
    rig = GrblRig()
    assert rig.send("G1 X1 F600\n!G1 X2\n") == ["ok"]
    rig.wait(1.0)
    assert rig.state() == "Hold:0"
    assert rig.send("~") == ["ok"]


def test_the_end_of_a_program_waits_for_standstill() -> None:
    rig = GrblRig()
    assert rig.send("G1 X10 F600\nM2\n") == ["ok"]
    assert rig.wait(2.0) == ["[MSG:Pgm End]", "ok"]


def test_the_reset_button_forgets_everything() -> None:
    rig = homed()
    rig.send("G0 X400\n")
    assert rig.firmware.boot(rig.now_s).decode().split("\r\n")[:-1] == BANNER
    assert "|H:0" in rig.send("?")[0] + rig.send("?")[0]


def test_a_held_queue_of_moves_stands_still() -> None:
    motion = Motion(4)
    motion.add((10.0, 0.0, 0.0), 10.0)
    motion.add((20.0, 0.0, 0.0), 10.0)
    motion.start(0.0)
    motion.hold(0.5)
    assert motion.position(9.0) == pytest.approx((6.4, 0.0, 0.0), abs=0.1)
    motion.start(9.0)
    assert motion.position(100.0) == (20.0, 0.0, 0.0)


# -- as a process


def test_it_runs_as_a_process_and_logs_what_it_carried_out(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with simulator("grbl", "--tcp", "127.0.0.1:0", "--speed", "100", "--log", str(log)) as (_, where), tcp(where) as fd:
        os.write(fd, b"G1 X10 F600\nG4 P0.01\n")
        assert read_until(fd, lambda seen: seen.count(b"ok\r\n") == 2)
        os.write(fd, b"?")
        assert b"<Idle|MPos:10.000," in read_until(fd, lambda seen: seen.endswith(b">\r\n"))
    assert [line.split("\t")[1:] for line in log.read_text().splitlines()] == [
        ["!", "boot"],
        ["-", "G1 X10 F600"],
        ["-", "G4 P0.01"],
    ]


def test_bad_arguments_are_one_line_and_exit_2() -> None:
    command = [sys.executable, "-m", "hil_sim.main", "grbl", "--tcp", "127.0.0.1:0", "--log", "/nonexistent/log"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "hil-sim grbl: cannot write the log /nonexistent/log: No such file or directory\n"
