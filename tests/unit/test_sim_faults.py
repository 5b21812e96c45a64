"""What goes wrong when a test asks for it."""

from __future__ import annotations

import pytest
from sim_rig import Rig, numbered

from hil_sim.faults import FaultError, Faults, LineNoise


def test_faults_are_parsed_from_their_texts() -> None:
    texts = ["drop-ok=3", "corrupt=0.5", "die-after=7", "silent-after=8", "halt-after=9", "no-ok-after-resend"]
    assert Faults.parse(texts) == Faults(
        corrupt=0.5, die_after=7, drop_ok=3, halt_after=9, no_ok_after_resend=True, silent_after=8
    )


@pytest.mark.parametrize(
    "text", ["", "fire", "drop-ok", "drop-ok=0", "drop-ok=x", "corrupt=2", "corrupt=nan", "no-ok-after-resend=1"]
)
def test_a_fault_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(FaultError, match=r"fault"):
        Faults.parse([text])


def test_drop_ok_loses_the_ok_of_one_numbered_line() -> None:
    rig = Rig(faults=Faults(drop_ok=2))
    assert rig.send("G90\n" + numbered(1, "G90")) == ["ok", "ok"]
    assert rig.send(numbered(2, "M105")) == []
    assert rig.send(numbered(3, "G90")) == ["ok"]
    assert rig.executed() == ["G90", "G90", "M105", "G90"]


def test_die_after_resets_counter_heaters_and_queue() -> None:
    rig = Rig(faults=Faults(die_after=2))
    lines = rig.send("M104 S200\n" + numbered(1, "G90") + numbered(2, "G90"))
    assert lines == ["ok", "ok", *rig.banner.splitlines()]
    assert rig.send("N9 G90*1\n")[0].endswith("Last Line: 0")
    assert " /0.00 " in rig.send("M105\n")[0]
    assert rig.log[-2:] == [("!", "boot"), ("-", "M105")]


def test_silent_after_hangs_until_a_reset() -> None:
    rig = Rig(faults=Faults(silent_after=2))
    assert rig.send("M155 S1\nG90\nG90\n") == ["ok", "ok"]
    assert rig.wait(10.0) == []
    assert rig.send("M112\n") == []
    assert rig.firmware.boot(rig.now_s).startswith(b"start\n")
    assert rig.send("G90\n") == ["ok"]


def test_halt_after_is_a_thermal_runaway() -> None:
    rig = Rig(faults=Faults(halt_after=1))
    assert rig.send("G90\nG90\n") == [
        "ok",
        "Error:Thermal Runaway, system stopped! Heater_ID: 0",
        "Error:Printer halted. kill() called!",
    ]
    assert rig.send("M105\n") == []
    assert rig.log[-1] == ("!", "halt")


def test_a_run_out_pauses_by_itself_and_tells_no_ok_of_it() -> None:
    rig = Rig(faults=Faults(run_out_after=2))
    said = rig.send("G90\n" + numbered(1, "G90") + numbered(2, "G91"))
    assert [line for line in said if line == "ok"] == ["ok", "ok"]
    assert "//action:prompt_begin FilamentRunout T0" in said
    assert said.index("//action:paused filament_runout 0") < said.index("//action:prompt_begin Nozzle Parked")
    assert rig.wait(2.5) == ["echo:busy: paused for user"]
    assert rig.send("M876 S0\n").count("ok") == 2
    assert rig.executed() == ["G90", "G90", "M600", "G91", "M876 S0"]


def test_somebody_pauses_and_resumes_or_cancels_at_the_display() -> None:
    rig = Rig(faults=Faults(pause_after=1, cancel_after=2))
    assert rig.send("G90\n") == ["ok", "//action:pause"]
    assert rig.wait(61.0) == ["//action:resume"]
    assert rig.send("G90\n") == ["ok", "//action:cancel"]


def test_no_ok_after_resend() -> None:
    rig = Rig(faults=Faults(no_ok_after_resend=True))
    assert rig.send("N9 G90*1\n") == ["Error:Line Number is not Last Line Number+1, Last Line: 0", "Resend: 1"]


def test_corrupt_flips_one_bit_in_its_share_of_the_lines() -> None:
    lines = [f"G1 X{i} Y{i}\n".encode() for i in range(2000)]
    noise = LineNoise(0.1, seed=1)
    flips = [sum((a ^ b).bit_count() for a, b in zip(line, noise.disturb(line), strict=True)) for line in lines]
    assert set(flips) == {0, 1}
    assert 150 < sum(flips) < 250
    again = LineNoise(0.1, seed=1)
    assert again.disturb(b"".join(lines)) == b"".join(map(LineNoise(0.1, seed=1).disturb, lines))


def test_garble_flips_bits_in_what_is_sent() -> None:
    rig = Rig(faults=Faults(garble=1.0), seed=3)
    (said,) = rig.send("G90\n")
    assert len(said) == len("ok")
    assert said != "ok"


def test_corrupt_lines_are_refused_by_their_checksum() -> None:
    rig = Rig(faults=Faults(corrupt=1.0), seed=3)
    assert all(not line.startswith("ok T") for line in rig.send(numbered(1, "M105")))
