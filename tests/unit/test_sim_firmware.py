"""What the simulated printer does with lines, time and its buffers."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim_rig import Rig, numbered

from hil_sim.printer.board import Options

REFUSED_AT_1 = ["Error:Line Number is not Last Line Number+1, Last Line: 1", "Resend: 2", "ok"]


def slow_moves(count: int) -> str:
    """Moves of a good second each, back and forth."""
    return "".join(f"G1 X{10 * (i % 2 + 1)} F600\n" for i in range(count))


# -- lines


@pytest.mark.parametrize("text", ["\n", "\r\n", ";comment\n", "; G1 X1\r\n", "\n\n;\n"])
def test_blank_lines_and_comments_have_no_answer(text: str) -> None:
    rig = Rig()
    assert rig.send(text) == []
    assert rig.executed() == []


def test_a_comment_behind_a_command_is_cut_off() -> None:
    rig = Rig()
    assert rig.send("G90;absolute\n") == ["ok"]
    assert rig.executed() == ["G90"]


def test_a_long_line_is_cut_in_silence() -> None:
    rig = Rig()
    assert rig.send("M117 " + "x" * 200 + "\n") == ["ok"]
    assert rig.executed() == ["M117 " + "x" * 90]


def test_unknown_commands_are_echoed_and_acknowledged() -> None:
    assert Rig().send("G999 X1\n") == ['echo:Unknown command: "G999 X1"', "ok"]
    assert Rig().send(numbered(1, "Y20 E1.2")) == ['echo:Unknown command: "Y20 E1.2"', "ok"]


@pytest.mark.parametrize("reset", ["M110 N7\n", "N0 M110 N7*38\n", "N7 M110*5\n"])
def test_m110_sets_the_line_counter(reset: str) -> None:
    rig = Rig()
    if reset.startswith("N"):
        body = reset.partition("*")[0]
        checksum = 0
        for char in body.encode():
            checksum ^= char
        reset = f"{body}*{checksum}\n"
    assert rig.send(reset) == ["ok"]
    assert rig.send(numbered(8, "G90")) == ["ok"]


def test_the_number_is_checked_before_the_checksum() -> None:
    rig = Rig()
    rig.send(numbered(1, "G90"))
    assert rig.send("N5 G90*1\n") == REFUSED_AT_1
    assert rig.send("N1 G90*1\n") == []


def test_a_refusal_comes_when_the_line_is_read_before_the_oks_of_queued_lines() -> None:
    rig = Rig()
    assert rig.send(numbered(1, "G4 P500")) == []
    assert rig.send("N5 M105*1\n") == REFUSED_AT_1
    assert rig.wait(1.0) == ["ok"]


def test_a_refusal_flushes_what_has_arrived_and_the_cut_tail_runs_unchecked() -> None:
    rig = Rig(Options(rx_bytes=len("N1 ") + 1))
    assert rig.send("N5 M105*1\n" + numbered(1, "G1 X10 F600")) == [
        "Error:Line Number is not Last Line Number+1, Last Line: 0",
        "Resend: 1",
        "ok",
        "ok",
    ]
    assert rig.log[1:] == [("-", "G1 X10 F600")]


def test_four_commands_are_taken_while_one_blocks_and_the_ring_holds_the_rest() -> None:
    rig = Rig()
    rig.send("G4 S1\nG90\nG91\nM82\nM83\n")
    assert rig.executed() == ["G4 S1"]
    assert rig.wait(2.0) == ["ok"] * 5
    assert rig.executed() == ["G4 S1", "G90", "G91", "M82", "M83"]


def test_a_full_ring_loses_bytes() -> None:
    rig = Rig(Options(rx_bytes=8))
    rig.send("G4 S1\nG90\nG91\nM82\n")
    rig.send("M83\nM400\n")
    rig.wait(2.0)
    assert rig.send("\n") == ['echo:Unknown command: "M40"', "ok"]
    assert rig.executed()[-2:] == ["M83", "M40"]


def test_advanced_ok_shows_number_and_free_places() -> None:
    rig = Rig(Options(advanced_ok=True))
    assert rig.send("G90\n") == ["ok P15 B3"]
    assert rig.send(numbered(1, "G1 X10 F60")) == ["ok N1 P14 B3"]
    assert rig.send("N9 G90*1\n") == REFUSED_AT_1
    assert rig.send("M105\n") == ["ok T:20.00 /0.00 B:20.00 /0.00 @:0 B@:0"]


GOOD_LINES = st.sampled_from(
    [
        "G90\n",
        "M105\r\n",
        "; nothing\n",
        "\n",
        "m105\n",
        "M105*33\n",
        "G92 X1 E2\n",
        "M118 E1 hello\n",
        "M114\n",
        "M117 " + "y" * 120 + "\n",
        "M110 N0\n",
        "M108\n",
        "M115\n",
        "N0 M110 N3*34\n",
        "N3 G90*1\n",
    ]
)


@given(lines=st.lists(GOOD_LINES, max_size=12), cuts=st.lists(st.integers(0, 900), max_size=10), bad=st.booleans())
def test_any_split_of_the_bytes_gives_the_same_answer(lines: list[str], cuts: list[int], bad: bool) -> None:
    setup = numbered(0, "M110 N2") + numbered(3, "G90")
    lines = [line for line in lines if not line.startswith("N0")]
    text = setup + "".join(line for line in lines if line != "M110 N0\n")
    if bad:
        text += "N77 G90*1\n"
    whole, split, bytewise = Rig(), Rig(), Rig()
    expected = whole.send(text)
    edges = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    got = "".join(split.firmware.feed(text[a:b].encode(), 0.0).decode() for a, b in itertools.pairwise(edges))
    assert got.splitlines() == expected
    assert "".join(bytewise.firmware.feed(bytes([b]), 0.0).decode() for b in text.encode()).splitlines() == expected
    assert split.log == whole.log == bytewise.log


# -- waiting


@pytest.mark.parametrize(("command", "seconds"), [("G4 S5", 5.0), ("G4 P5000", 5.0)])
def test_a_dwell_holds_back_its_ok_and_says_busy_every_two_seconds(command: str, seconds: float) -> None:
    rig = Rig()
    assert rig.send(command + "\n") == []
    assert rig.wait(seconds - 0.5) == ["echo:busy: processing"] * 2
    assert rig.wait(0.5) == ["ok"]


def test_m400_waits_for_the_last_move() -> None:
    rig = Rig()
    assert rig.send("G1 X10 F600\nM400\n") == ["ok"]
    assert rig.wait(0.9) == []
    assert rig.wait(0.3) == ["ok"]


def test_fifteen_moves_fit_and_the_next_waits_for_the_first_to_end() -> None:
    rig = Rig()
    assert rig.send(slow_moves(15)) == ["ok"] * 15
    assert rig.send("G1 X50\n") == []
    assert rig.wait(1.5) == ["ok"]


def test_a_slow_move_makes_the_waiting_one_busy() -> None:
    rig = Rig()
    rig.send("G1 X100 F600\n" + slow_moves(14))
    assert rig.send("G1 X50\n") == []
    assert rig.wait(5.0) == ["echo:busy: processing"] * 2


def test_m114_is_projected_and_m114_r_is_real() -> None:
    rig = Rig()
    rig.send("G1 X100 F600\n")
    rig.wait(5.0)
    assert rig.send("M114\n")[0].startswith("X:100.00 ")
    real_mm = float(rig.send("M114 R\n")[0].split()[0][2:])
    assert 45.0 < real_mm < 55.0


def test_m109_heats_in_about_75_seconds() -> None:
    rig = Rig()
    assert rig.send("M109 S215\n") == []
    assert not any(line == "ok" for line in rig.wait(60.0))
    lines = rig.wait(45.0)
    assert lines[-1] == "ok"
    assert [line[-3:] for line in lines if "W:" in line][-11:] == ["W:?", *(f"W:{i}" for i in range(9, -1, -1))]


def test_m190_heats_the_bed_in_about_90_seconds() -> None:
    rig = Rig()
    rig.send("M190 S60\n")
    assert rig.wait(75.0)[-1] != "ok"
    assert rig.wait(45.0)[-1] == "ok"


def test_m109_s_does_not_wait_for_cooling_and_m109_r_does() -> None:
    rig = Rig()
    rig.send("M104 S200\n")
    rig.wait(200.0)
    assert rig.send("M109 S180\n") == ["ok"]
    assert rig.send("M109 R170\n") == []
    assert rig.wait(120.0)[-1] == "ok"


def test_m108_ends_a_wait_for_a_temperature() -> None:
    rig = Rig()
    rig.send("M109 S215\n")
    assert rig.send("M108\n") == ["ok", "ok"]


def test_auto_report_stops_at_zero() -> None:
    rig = Rig()
    rig.send("M155 S2\n")
    assert len(rig.wait(9.0)) == 4
    rig.send("M155 S0\n")
    assert rig.wait(9.0) == []


# -- motion


def test_e_is_absolute_after_g90_and_relative_after_m83() -> None:
    rig = Rig()
    rig.send("M104 S200\n")
    rig.wait(100.0)
    rig.send("M83\nG1 E2\nG1 E2\n")
    assert " E:4.00 " in rig.send("M114\n")[0]
    rig.send("G90\nG1 E1\n")
    assert " E:1.00 " in rig.send("M114\n")[0]


def test_relative_moves_add_up() -> None:
    rig = Rig()
    rig.send("G91\nG1 X5 Y1\nG1 X5 Y-0.5\n")
    assert rig.send("M114\n") == ["X:10.00 Y:0.50 Z:0.00 E:0.00 Count X:800 Y:40 Z:0", "ok"]


def test_software_end_stops_hold_after_homing_only() -> None:
    rig = Rig()
    rig.send("G1 X500\n")
    assert rig.send("M114\n")[0].startswith("X:500.00 ")
    rig.send("G28\n")
    rig.wait(60.0)
    rig.send("G1 X500 Y-3\n")
    assert rig.send("M114\n")[0].startswith("X:200.00 Y:0.00 ")


def test_a_cold_extrusion_moves_the_axes_and_not_the_filament() -> None:
    rig = Rig()
    assert rig.send("G1 X10 E5 F600\n") == ["echo: cold extrusion prevented", "ok"]
    assert rig.send("M114\n")[0].startswith("X:10.00 Y:0.00 Z:0.00 E:5.00 ")


def test_an_arc_takes_as_long_as_its_length() -> None:
    chord, arc = Rig(), Rig()
    chord.send("G1 X100 F600\nM400\n")
    arc.send("G2 X100 I50 F600\nM400\n")
    assert chord.wait(10.5) == ["echo:busy: processing"] * 5 + ["ok"]
    assert arc.wait(15.5) == ["echo:busy: processing"] * 7
    assert arc.wait(0.5) == ["ok"]


def test_feed_percent_slows_moves() -> None:
    rig = Rig()
    rig.send("M220 S50\nG1 X10 F600\nM400\n")
    assert rig.wait(1.9) == []
    assert rig.send("M220\n") == []
    assert rig.wait(0.3)[-3:] == ["ok", "FR:50%", "ok"]


# -- operator and emergency


@pytest.mark.parametrize("line", ["M112\n", "N55 M112*3\n", "  M112\r\n"])
def test_m112_kills_from_anywhere_with_a_full_queue_and_ring(line: str) -> None:
    rig = Rig(Options(rx_bytes=4))
    rig.send("M104 S200\nG4 S100\nG90\nG90\nG90\nG90\nG90\n")
    assert rig.send(line) == [
        "echo:M112 Shutdown",
        "Error:Printer halted. kill() called!",
        "//action:poweroff",
    ]
    assert rig.send("M105\nM112\n") == []
    assert rig.wait(200.0) == []
    assert rig.firmware.next_wakeup_s() is None
    assert rig.firmware.boot(rig.now_s).startswith(b"start\n")
    assert " /0.00 B:" in rig.send("M105\n")[0]


def test_m112_inside_another_line_is_text() -> None:
    assert Rig().send("M117 M112\n") == ["ok"]


KILLED = ["echo:M112 Shutdown", "Error:Printer halted. kill() called!", "//action:poweroff"]


def test_without_the_emergency_parser_m112_acts_when_it_is_read_and_so_not_behind_a_full_queue() -> None:
    rig = Rig(Options(emergency_parser=False))
    assert "Cap:EMERGENCY_PARSER:0" in rig.send("M115\n")
    assert rig.send("G4 S1\nM112\n") == KILLED
    rig = Rig(Options(emergency_parser=False))
    assert rig.send("G4 S1\nG90\nG90\nG90\nM112\n") == []
    assert rig.wait(1.0)[-3:] == KILLED


def test_without_the_emergency_parser_m108_ends_a_heat_up_when_read_and_releases_nobody() -> None:
    rig = Rig(Options(emergency_parser=False))
    rig.send("M109 S215\n")
    assert rig.send("M108\n") == ["ok", "ok"]
    rig.send("M0\n")
    assert rig.send("M108\nM876 S0\n") == []
    assert rig.send(numbered(1, "M112")) == [], "with a number it is a line like any other"


def test_m410_without_the_emergency_parser_drops_the_queued_moves_when_read() -> None:
    rig = Rig(Options(emergency_parser=False))
    rig.send("G1 X100 F600\n" + slow_moves(14) + "G1 X70\n")
    rig.wait(5.0)
    assert rig.send("M410\n") == ["ok", "ok"]
    assert rig.send("M400\n") == ["ok"]


def test_m410_drops_the_queued_moves_where_the_tool_is() -> None:
    rig = Rig()
    rig.send("G1 X100 F600\n" + slow_moves(14) + "G1 X70\n")
    rig.wait(5.0)
    assert rig.send("M410\n") == ["ok", "ok"]
    assert 45.0 < float(rig.send("M114\n")[0].split()[0][2:]) < 55.0
    assert rig.send("M400\n") == ["ok"]


def test_m600_pauses_until_m108() -> None:
    rig = Rig()
    assert rig.send("M600\n")[0] == "//action:paused"
    assert rig.wait(4.5) == ["echo:busy: paused for user"] * 2
    released = rig.send("M108\n")
    assert (released[1], released[-2:]) == ("//action:resumed", ["ok", "ok"])


def test_m876_answers_a_prompt_that_waits_and_no_other() -> None:
    rig = Rig()
    assert rig.send("M0 Change the plate\n")[0] == "echo:Change the plate"
    assert rig.send("M876 S0\n") == ["ok", "ok"]
    rig = Rig(Options(prompts=False))
    assert rig.send("M1\n") == ["echo:Click please"]
    assert rig.send("M108\n") == ["ok", "ok"]
    assert rig.send("M876 S0\n") == ["ok"]


def test_m0_with_a_time_goes_on_by_itself() -> None:
    rig = Rig()
    rig.send("M0 S3\n")
    assert rig.wait(2.5) == ["echo:busy: paused for user"]
    assert rig.wait(1.0) == ["ok"]


def test_m118_speaks_to_the_host() -> None:
    rig = Rig()
    assert rig.firmware.feed(b"M118 E1 hello\nM118 A1 action\nM118 plain\n", 0.0) == (
        b"echo:hello\r\nok\n//action\r\nok\nplain\r\nok\n"
    )


def test_the_identity_carries_the_given_uuid() -> None:
    assert Rig(Options(uuid="11111111-2222")).send("M115\n")[0].endswith(" UUID:11111111-2222")


def test_commands_are_logged_in_the_order_of_execution() -> None:
    rig = Rig()
    rig.send(numbered(1, "G90") + "M105*33\n" + numbered(2, "G92 E0"))
    assert rig.log == [("!", "boot"), ("1", "G90"), ("-", "M105"), ("2", "G92 E0")]
