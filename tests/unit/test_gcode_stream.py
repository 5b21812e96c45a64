"""The line protocol: what goes out, what each answer moves, and which words a failure has."""

from __future__ import annotations

import random
from functools import reduce
from operator import xor

import pytest

from drivers.gcode import stream
from drivers.gcode.events import Acked, Answered, Cause, Event, Failed, Heard, Probed, Silent, Speaks
from drivers.gcode.framing import Wire, checksum, numbered, program_lines
from drivers.gcode.replies import Position, Reply, Temperatures, Text, UnknownCommand
from drivers.gcode.stream import CLEAN_LINES, DISTRUST_ERRORS, PROBE_NUMBER, RESEND_OK_S, GcodeStream
from hil_sim.faults import Faults
from tests.helpers.wire import Bench, byte_by_byte, random_pieces, whole

WIRE = Wire(stall_s=6.0, silence_s=20.0, max_resends=3)
PROBE = f"N{PROBE_NUMBER} M105*46\n".encode()


class Talk:
    """A stream, and the firmware's part in the test's own words."""

    def __init__(self, wire: Wire = WIRE) -> None:
        self.now_s = 100.0
        self.stream = GcodeStream(wire, self.now_s)

    def sent(self) -> list[str]:
        return [line.partition("*")[0] for line in self.stream.take(self.now_s).decode().splitlines()]

    def say(self, *lines: str) -> list[Event]:
        return self.stream.receive("".join(f"{line}\n" for line in lines).encode(), self.now_s)

    def tick(self) -> tuple[bytes, list[Event]]:
        deadline_s = self.stream.deadline_s()
        assert deadline_s is not None
        self.now_s = deadline_s
        return self.stream.tick(self.now_s)

    def begin(self, *commands: str) -> None:
        """Begin, up to the acknowledgement of `M110 N0`."""
        self.stream.begin(program_lines(commands))
        assert self.sent() == ["N0 M110 N0"]
        assert self.say("ok") == [Acked(0)]


def is_temperatures(reply: Reply) -> bool:
    return isinstance(reply, Temperatures)


# -- framing


@pytest.mark.parametrize("command", ["G1 X10 Y20", "M105", "M117 a b c"])
def test_a_numbered_line_carries_the_xor_of_what_stands_before_the_star(command: str) -> None:
    line = numbered(7, command)
    body, _, given = line.rstrip(b"\n").rpartition(b"*")
    assert body.decode() == f"N7 {command}"
    assert int(given) == reduce(xor, body) == checksum(body)


# -- the good way


def test_a_program_starts_from_line_0_and_goes_line_by_line() -> None:
    talk = Talk()
    talk.stream.begin(program_lines(["G28", "G1 X1"]))
    assert not talk.stream.idle
    assert talk.sent() == ["N0 M110 N0"]
    assert talk.sent() == []
    assert talk.say("ok") == [Acked(0)]
    assert talk.sent() == ["N1 G28"]
    assert talk.say("echo:busy: processing", "ok")[-1] == Acked(1)
    assert talk.sent() == ["N2 G1 X1"]
    assert not talk.stream.drained
    assert talk.say("ok") == [Acked(2)]
    assert talk.sent() == []
    assert talk.stream.drained
    assert talk.stream.idle
    assert talk.stream.acked == 2


def test_a_window_is_filled_and_never_overfilled() -> None:
    talk = Talk(Wire(window_bytes=40))
    talk.begin(*["G1 X1"] * 5)
    assert talk.sent() == ["N1 G1 X1", "N2 G1 X1", "N3 G1 X1"]
    assert talk.say("ok") == [Acked(1)]
    assert talk.sent() == ["N4 G1 X1"]


def test_m110_is_alone_in_flight_even_with_a_window_and_a_request_before_it() -> None:
    talk = Talk(Wire(window_bytes=100))
    talk.stream.request("M105")
    assert talk.sent() == ["M105"]
    talk.stream.begin(program_lines(["G28"]))
    assert talk.sent() == ["N0 M110 N0"]
    assert talk.say("Error:checksum mismatch, Last Line: 5634", "Resend: 5635", "ok")[1:] == []
    assert talk.say("ok T:20 /0")[-1] == Answered("M105", (Temperatures({"T": (20.0, 0.0)}),))
    assert talk.sent() == ["N0 M110 N0"]
    assert talk.sent() == []
    assert talk.say("ok") == [Acked(0)]
    assert talk.sent() == ["N1 G28"]


def test_a_program_may_begin_while_a_poll_is_in_flight() -> None:
    talk = Talk()
    talk.stream.request("M105")
    assert talk.sent() == ["M105"]
    talk.stream.begin(program_lines(["G28"]))
    assert talk.sent() == []
    assert isinstance(talk.say("ok T:1 /0")[-1], Answered)
    assert talk.sent() == ["N0 M110 N0"]


def test_a_program_is_not_begun_before_the_end_of_another() -> None:
    talk = Talk()
    talk.begin("G28")
    with pytest.raises(RuntimeError):
        talk.stream.begin(program_lines(["G28"]))


def test_a_program_that_is_begun_while_the_counter_is_asked_for_waits_for_it() -> None:
    talk = Talk()
    talk.stream.probe()
    assert talk.sent() == [f"N{PROBE_NUMBER} M105"]
    talk.stream.begin(program_lines(["G28"]))
    assert talk.sent() == []
    assert talk.say("Resend: 5635", "ok") == [Probed(5634)]
    assert talk.sent() == ["N0 M110 N0"]


def test_a_request_collects_what_is_said_until_its_ok() -> None:
    talk = Talk()
    talk.stream.request("M114")
    assert talk.sent() == ["M114"]
    *heard, answered = talk.say("X:1 Y:2 Z:3 E:4 Count X:0", "echo:hello", "ok")
    position, hello = Position({"X": 1.0, "Y": 2.0, "Z": 3.0, "E": 4.0}), Text("echo:hello")
    assert heard == [Heard(position), Heard(hello)]
    assert answered == Answered("M114", (position, hello))


def test_an_ok_before_the_expected_answer_is_somebody_elses() -> None:
    talk = Talk()
    talk.stream.request("M105", is_temperatures)
    talk.sent()
    assert talk.say("ok") == []
    (_, answered) = talk.say("ok T:20 /0")
    assert answered == Answered("M105", (Temperatures({"T": (20.0, 0.0)}),))


def test_requests_go_before_the_next_command_of_a_program() -> None:
    talk = Talk()
    talk.begin("G28", "G1 X1")
    assert talk.sent() == ["N1 G28"]
    talk.stream.request("M105")
    talk.say("ok")
    assert talk.sent() == ["M105"]
    talk.say("ok")
    assert talk.sent() == ["N2 G1 X1"]


def test_an_interjection_goes_out_at_once_and_takes_its_own_ok() -> None:
    talk = Talk()
    talk.begin("M109 S200", "G28")
    assert talk.sent() == ["N1 M109 S200"]
    assert talk.stream.interject("M108", talk.now_s) == b"M108\n"
    assert talk.say("ok", "ok") == [Acked(1), Answered("M108", ())]
    assert talk.sent() == ["N2 G28"]


def test_an_interjection_on_an_idle_stream_is_owed_an_answer_from_now() -> None:
    talk = Talk()
    talk.now_s += 1000.0
    talk.stream.interject("M108", talk.now_s)
    assert talk.stream.deadline_s() == talk.now_s + WIRE.stall_s


def test_a_silence_that_had_a_reason_is_none() -> None:
    talk = Talk()
    talk.begin("M600")
    assert talk.sent() == ["N1 M600"]
    talk.now_s += 1000.0
    talk.stream.excuse(talk.now_s)
    assert talk.stream.deadline_s() == talk.now_s + WIRE.stall_s


def test_with_advanced_ok_a_later_line_answers_for_those_before_it() -> None:
    talk = Talk(Wire(window_bytes=100))
    talk.begin("G1 X1", "G1 X2", "G1 X3")
    assert len(talk.sent()) == 3
    assert talk.say("ok N2 P15 B3") == [Acked(1), Acked(2)]
    assert talk.say("ok N2 P15 B3") == []
    assert talk.say("ok N3 P15 B3") == [Acked(3)]


def test_an_ok_that_nobody_waits_for_moves_nothing() -> None:
    talk = Talk()
    assert talk.say("ok") == []
    assert talk.stream.idle


def test_a_cut_sends_nothing_more_and_keeps_what_is_in_flight() -> None:
    talk = Talk()
    talk.begin("G28", "G1 X1")
    talk.sent()
    assert talk.stream.cut() == 1
    assert not talk.stream.drained
    assert talk.say("ok") == [Acked(1)]
    assert talk.sent() == []
    assert talk.stream.drained


# -- refusals


def test_a_refused_line_goes_out_again_when_the_ok_of_its_resend_has_come() -> None:
    talk = Talk()
    talk.begin("G28")
    assert talk.sent() == ["N1 G28"]
    talk.say("Error:checksum mismatch, Last Line: 0", "Resend: 1")
    assert talk.sent() == []
    assert talk.say("ok") == []
    assert talk.sent() == ["N1 G28"]
    assert talk.say("ok") == [Acked(1)]
    assert talk.stream.resends == 1


def test_a_refused_line_goes_out_again_although_no_ok_follows() -> None:
    talk = Talk()
    talk.begin("G28")
    talk.sent()
    talk.say("Error:checksum mismatch, Last Line: 0", "Resend: 1")
    assert talk.stream.deadline_s() == talk.now_s + RESEND_OK_S
    assert talk.tick() == (b"", [])
    assert talk.sent() == ["N1 G28"]
    assert talk.stream.time_outs == 0


def test_a_line_in_a_window_is_refused_with_those_behind_it_and_trust_comes_back_late() -> None:
    talk = Talk(Wire(window_bytes=100))
    talk.begin(*["G1 X1"] * (CLEAN_LINES + 10))
    talk.sent()
    talk.say("Error:checksum mismatch, Last Line: 0", "Resend: 1", "ok")
    assert talk.sent() == ["N1 G1 X1"]
    talk.say("Error:Line Number is not Last Line Number+1, Last Line: 0", "Resend: 1", "ok")  # of line 2
    assert talk.sent() == []
    assert talk.stream.window_bytes == 0
    for number in range(1, CLEAN_LINES + 1):
        assert talk.say("ok") == [Acked(number)]
        assert len(talk.sent()) >= 1
    assert talk.stream.window_bytes == 100


def test_an_error_in_many_prints_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FORGIVE_LINES", 3 * CLEAN_LINES)
    talk, acked = Talk(Wire(window_bytes=100)), 0
    talk.begin(*["G1 X1"] * 100_000)

    def clean(lines: int) -> None:
        nonlocal acked
        for acked in range(acked + 1, acked + lines + 1):  # noqa: B020 - it goes on from there
            talk.sent()
            assert talk.say("ok") == [Acked(acked)]

    def err() -> None:
        talk.sent()
        # Some firmware says no `Resend` to each: what was clean until then counts once.
        talk.say("Error:checksum mismatch", f"Resend: {acked + 1}", "ok")

    for _ in range(3 * DISTRUST_ERRORS):
        err()
        assert not talk.stream.distrusted
        clean(3 * CLEAN_LINES)
        assert talk.stream.window_bytes == 100
    for _ in range(DISTRUST_ERRORS):
        err()
        clean(2 * CLEAN_LINES)
    assert talk.stream.distrusted
    clean(CLEAN_LINES)
    assert not talk.stream.distrusted, "now it has made up for one of them"
    assert talk.stream.resends == 4 * DISTRUST_ERRORS


def test_a_link_that_keeps_erring_is_never_trusted_with_a_window_again() -> None:
    talk = Talk(Wire(window_bytes=100))
    talk.begin(*["G1 X1"] * (CLEAN_LINES + 20))
    for number in range(1, DISTRUST_ERRORS + 1):
        talk.sent()
        talk.say("Error:checksum mismatch", f"Resend: {number}", "ok")
        talk.sent()
        assert talk.stream.distrusted == (number == DISTRUST_ERRORS)
        talk.say("ok")
    assert talk.stream.distrusted
    for _ in range(CLEAN_LINES + 5):
        talk.sent()
        talk.say("ok")
    assert talk.stream.window_bytes == 0


def test_a_resend_of_a_line_that_is_not_in_flight_takes_nothing_back() -> None:
    talk = Talk(Wire(window_bytes=100))
    talk.begin("G1 X1", "G1 X2")
    talk.sent()
    assert talk.say("Resend: 3", "ok") == []
    assert talk.sent() == []


def test_a_line_whose_number_was_garbled_goes_out_again() -> None:
    talk = Talk()
    talk.begin("G28")
    talk.sent()
    assert talk.say('echo:Unknown command: "O1 G28"', "ok") == [Heard(UnknownCommand("O1 G28"))]
    assert talk.sent() == ["N1 G28"]


def test_the_ok_of_garbage_acknowledges_no_request() -> None:
    talk = Talk(Wire(window_bytes=100))
    talk.begin("G28")
    talk.sent()
    talk.say('echo:Unknown command: "O1 G28"')
    talk.stream.interject("M105", talk.now_s)
    talk.stream._flight.popleft()
    assert talk.say("ok") == []


# -- silence


def test_a_stall_asks_the_firmware_and_a_taken_line_is_acknowledged() -> None:
    talk = Talk()
    talk.begin("G28", "G1 X1")
    talk.sent()
    assert talk.tick() == (b"\n" + PROBE, [])
    assert talk.sent() == []
    assert talk.say("Error:Line Number is not Last Line Number+1, Last Line: 1", "Resend: 2", "ok")[1:] == [
        Acked(1),
        Probed(1),
    ]
    assert talk.sent() == ["N2 G1 X1"]
    assert talk.stream.time_outs == 1


def test_a_stall_of_a_line_that_was_not_taken_sends_it_again_with_the_requests_around_it() -> None:
    talk = Talk(Wire(window_bytes=100))
    talk.begin("G28", "G1 X1")
    talk.stream.request("M105")
    assert talk.sent() == ["M105", "N1 G28", "N2 G1 X1"]
    talk.tick()
    assert talk.say("Resend: 1", "ok") == [Probed(0)]
    assert talk.sent()[0] == "M105"


def test_busy_lines_and_refusals_are_signs_of_life_and_reports_are_not() -> None:
    talk = Talk()
    talk.begin("M109 S200")
    talk.sent()
    start_s = talk.now_s
    talk.now_s += 5.0
    talk.say("echo:busy: processing")
    assert talk.stream.deadline_s() == start_s + 5.0 + WIRE.stall_s
    talk.now_s += 5.0
    talk.say(" T:20.00 /200.00")
    assert talk.stream.deadline_s() == start_s + 5.0 + WIRE.stall_s
    talk.say("Error:checksum mismatch")
    assert talk.stream.deadline_s() == start_s + 10.0 + WIRE.stall_s


def test_the_counter_of_a_firmware_that_counts_for_somebody_else_is_told_and_not_judged() -> None:
    talk = Talk()
    talk.stream.probe()
    assert not talk.stream.idle
    assert talk.sent() == [f"N{PROBE_NUMBER} M105"]
    assert talk.say("Error:Line Number is not Last Line Number+1, Last Line: 5634", "Resend: 5635", "ok")[1:] == [
        Probed(5634)
    ]
    assert talk.stream.idle


def test_half_a_line_left_by_another_host_is_no_failure() -> None:
    talk = Talk()
    talk.stream.request("M115")
    talk.sent()
    assert talk.say("Error:No Checksum with line number, Last Line: 56", "Resend: 57", "ok")[1:] == []
    assert talk.say("ok") == [Answered("M115", ())]


def test_a_stall_of_m110_sends_it_again_whatever_the_firmware_counts() -> None:
    talk = Talk()
    talk.stream.begin(program_lines(["G28"]))
    talk.sent()
    talk.tick()
    talk.say("Resend: 5635", "ok")
    assert talk.sent() == ["N0 M110 N0"]


def test_a_probe_waits_for_what_is_in_flight_and_has_its_own_time() -> None:
    talk = Talk()
    talk.stream.request("M105")
    talk.sent()
    talk.stream.probe()
    assert talk.sent() == []
    talk.say("ok")
    talk.now_s += 1000.0
    assert talk.sent() == [f"N{PROBE_NUMBER} M105"]
    assert talk.stream.deadline_s() == talk.now_s + WIRE.stall_s


def test_a_tick_before_its_time_does_nothing() -> None:
    talk = Talk()
    assert talk.stream.deadline_s() is None
    assert talk.stream.tick(1e9) == (b"", [])
    talk.begin("G28")
    talk.sent()
    assert talk.stream.tick(talk.now_s + 1.0) == (b"", [])


# -- failures latch


def failed(events: list[Event]) -> Failed:
    (failure,) = (event for event in events if isinstance(event, Failed))
    return failure


def printing(wire: Wire = WIRE) -> Talk:
    talk = Talk(wire)
    talk.begin("G28", "G1 X1 E1", "G1 X2")
    talk.sent()
    talk.say("ok")
    assert talk.sent() == ["N2 G1 X1 E1"]
    return talk


REFUSED = ["Error:checksum mismatch, Last Line: 1", "Resend: 2", "ok"]


@pytest.mark.parametrize(
    ("said", "words", "cause"),
    [
        ("start", "the printer has restarted", Cause.RESTARTED),
        ("Error:Printer halted. kill() called!", "stopped itself: Printer halted. kill() called!", Cause.HALTED),
        ("Error:something else", "stopped itself: something else", Cause.SAID),
        ('echo:Unknown command: "G1 X1 E1"', 'does not know the command "G1 X1 E1"', Cause.SAID),
        ("echo: cold extrusion prevented", "did not carry out a command: cold extrusion prevented", Cause.SAID),
        ("Resend: 9", "counts line 8, but 2 were sent", Cause.SAID),
        ("Resend: 1", "counts line 0, but acknowledged 1", Cause.SAID),
    ],
)
def test_what_the_firmware_says_latches(said: str, words: str, cause: Cause) -> None:
    talk = printing()
    failure = failed(talk.say(said, "ok", "start"))
    assert words in failure.reason
    assert failure.cause is cause
    assert talk.say("ok", "ok") == []
    assert talk.sent() == []
    assert talk.stream.interject("M108", talk.now_s) == b""
    assert talk.stream.deadline_s() is None
    assert talk.stream.tick(1e9) == (b"", [])


def test_refused_too_often_latches() -> None:
    talk = printing()
    for _ in range(WIRE.max_resends):
        assert not any(isinstance(event, Failed) for event in talk.say(*REFUSED))
        assert talk.sent() == ["N2 G1 X1 E1"]
    failure = failed(talk.say(*REFUSED))
    assert failure == Failed("line 2 was refused 4 times", Cause.SAID)


def test_refusals_in_one_program_do_not_count_in_the_next() -> None:
    talk = Talk()
    for _ in range(2):
        talk.begin("G28")
        for _ in range(WIRE.max_resends):
            talk.sent()
            talk.say("Error:checksum mismatch, Last Line: 0", "Resend: 1", "ok")
        talk.sent()
        assert talk.say("ok") == [Acked(1)]
        talk.sent()


def test_one_that_says_nothing_is_asked_in_its_time_and_a_few_times_more() -> None:
    talk = printing()
    began_s = talk.now_s
    told: list[tuple[float, list[Event]]] = []
    while not (told and told[-1][1] and isinstance(told[-1][1][-1], Failed)):
        data, events = talk.tick()
        told.append((talk.now_s - began_s, events))
        assert data == (b"" if isinstance(told[-1][1][-1:] and events[-1], Failed) else b"\n" + PROBE)
    assert told == [
        (6.0, []),
        (12.0, []),
        (18.0, []),
        (20.0, [Silent(20.0)]),
        (25.0, [Silent(25.0)]),
        (30.0, [Silent(30.0)]),
        (35.0, [Failed("the printer has said nothing for 35 s", Cause.SILENT)]),
    ]


def test_one_that_speaks_again_in_time_goes_on_and_late_answers_move_nothing() -> None:
    talk = printing()
    for _ in range(5):
        talk.tick()
    answer = ("Error:Line Number is not Last Line Number+1, Last Line: 2", "Resend: 3", "ok")
    assert talk.say("ok") == [Speaks(25.0), Acked(2)]  # it had the line all the time
    assert talk.sent() == []
    assert talk.say(*answer)[1:] == [Probed(2)]
    assert talk.sent() == ["N3 G1 X2"]
    for _ in range(4):
        assert not any(isinstance(event, Failed | Probed) for event in talk.say(*answer))
        assert talk.sent() == []
    assert talk.say("ok") == [Acked(3)]
    assert talk.stream.resends == 0


def test_one_that_is_reset_in_its_silence_says_so() -> None:
    talk = printing()
    for _ in range(4):
        talk.tick()
    assert talk.say("start") == [Speaks(20.0), Failed("the printer has restarted", Cause.RESTARTED)]


def test_a_firmware_that_talks_but_does_not_say_its_counter_latches_as_unknown() -> None:
    talk = printing()
    events: list[Event] = []
    for _ in range(WIRE.max_resends + 2):
        talk.say("wait")
        _, events = talk.tick()
    assert failed(events).cause is Cause.UNCLEAR
    assert "talks, but does not say" in failed(events).reason


def test_what_was_interjected_is_never_sent_again() -> None:
    talk = Talk(Wire(window_bytes=100))
    talk.begin("G28", "G1 X1")
    assert talk.sent() == ["N1 G28", "N2 G1 X1"]
    talk.stream.interject("M108", talk.now_s)
    talk.say("Error:checksum mismatch, Last Line: 0", "Resend: 1", "ok")
    assert talk.sent() == [], "its ok may still come, and belongs to no line of the program"
    talk.tick()
    assert talk.say("Resend: 1", "ok") == [Probed(0)]
    assert talk.sent() == ["N1 G28"]


def test_an_interjection_that_arrives_changed_is_left_at_that() -> None:
    talk = Talk()
    talk.stream.interject("M108", talk.now_s)
    talk.say('echo:Unknown command: "M10x"', "ok")
    assert talk.sent() == []
    assert talk.stream.idle


# -- one scenario over four links

PROGRAM = ["G90", "G28", "G1 X10 Y10 F6000", "G4 P9000", "M114", *(f"G1 X{i} Z0.2" for i in range(60)), "M400"]

LINKS: dict[str, Bench] = {
    "direct": Bench(pieces=whole),
    "byte by byte": Bench(pieces=byte_by_byte),
    "corrupting": Bench(Wire(max_resends=100), faults=Faults(corrupt=0.2)),
    "slow, in chunks": Bench(pieces=random_pieces(random.Random(7)), delay_s=0.1),
}


@pytest.mark.parametrize("link", LINKS)
def test_a_print_over(link: str) -> None:
    bench = LINKS[link]
    bench.print(PROGRAM)
    assert bench.failure is None
    assert bench.program == PROGRAM
    assert (bench.stream.resends > 0) == (link == "corrupting")
    bench.stream.probe()
    bench.run()
    assert bench.events[-1] == Probed(len(PROGRAM))


# -- the simulated firmware's own ways to fail


@pytest.mark.parametrize(
    ("faults", "words", "cause"),
    [
        (Faults(die_after=20), "the printer has restarted", Cause.RESTARTED),
        (Faults(halt_after=20), "the printer stopped itself: ", Cause.HALTED),
        (Faults(silent_after=20), "the printer has said nothing for 45 s", Cause.SILENT),
        (Faults(corrupt=1.0), "was refused 11 times", Cause.SAID),
    ],
)
def test_a_print_fails_in_the_right_words(faults: Faults, words: str, cause: Cause) -> None:
    bench = Bench(faults=faults)
    bench.print(PROGRAM)
    assert bench.failure is not None
    assert words in bench.failure.reason
    assert bench.failure.cause is cause


def test_a_cold_extrusion_and_an_unknown_command_fail_a_print() -> None:
    for command, words in (("G1 X20 E5", "cold extrusion prevented"), ("G999 X1", 'know the command "G999 X1"')):
        bench = Bench()
        bench.print(["G28", command, "G1 X30"])
        assert bench.failure is not None
        assert words in bench.failure.reason
        assert bench.program[:2] == ["G28", command]


# -- going on after a crash


def test_a_program_goes_on_behind_the_number_that_the_firmware_has_taken() -> None:
    talk = Talk()
    talk.stream.begin(program_lines(["G1 X1", "G1 X2"], 5634), 5634, counted=True)
    assert talk.sent() == ["N5635 G1 X1"], "the firmware's counter is not touched"
    assert talk.say("ok") == [Acked(5635)]
    assert talk.sent() == ["N5636 G1 X2"]
    assert talk.say("ok") == [Acked(5636)]
    assert talk.sent() == []
    assert talk.stream.drained


def test_a_firmware_that_counts_less_than_it_had_taken_ends_a_program_that_went_on() -> None:
    talk = Talk()
    talk.stream.begin(program_lines(["G1 X1"], 5634), 5634, counted=True)
    assert talk.sent() == ["N5635 G1 X1"]
    (failed,) = talk.say("Error:Line Number is not Last Line Number+1, Last Line: 0", "Resend: 1")[1:]
    assert failed == Failed("the printer counts line 0, but acknowledged 5634", Cause.SAID)


def test_nothing_goes_out_beyond_what_is_allowed() -> None:
    talk = Talk()
    talk.stream.allow(2)
    talk.begin("G1 X1", "G1 X2", "G1 X3")
    for number in (1, 2):
        assert talk.sent() == [f"N{number} G1 X{number}"]
        talk.say("ok")
    assert talk.sent() == []
    assert not talk.stream.drained, "there is more of the program"
    assert talk.stream.deadline_s() is None, "waiting for leave is no silence of the printer"
    talk.stream.allow(3)
    assert talk.sent() == ["N3 G1 X3"]


# -- what a firmware cannot


def test_a_command_that_only_informs_need_not_be_known() -> None:
    talk = Talk(Wire(stall_s=6.0, silence_s=20.0, harmless=frozenset({"M73"})))
    talk.begin("M73 P10", "G1 X1")
    assert talk.sent() == ["N1 M73 P10"]
    assert talk.say('echo:Unknown command: "M73 P10"') == [Heard(UnknownCommand("M73 P10"))]
    assert talk.say("ok") == [Acked(1)]
    assert talk.sent() == ["N2 G1 X1"]


def test_a_command_is_known_by_its_code_however_it_is_written_and_whatever_happens_to_its_echo() -> None:
    talk = Talk()
    talk.begin("G2X10Y5I1J1E.5")
    assert talk.sent() == ["N1 G2X10Y5I1J1E.5"]
    (failed,) = talk.say('echo:Unknown command: "G2X10Y7I1J1E.5"', "ok")
    assert failed == Failed('the firmware does not know the command "G2X10Y7I1J1E.5"', Cause.SAID)
    assert talk.sent() == [], "sent again it would be dropped as a double, and then count as carried out"


def test_a_firmware_that_cannot_be_asked_leaves_a_lost_ok_unexplained() -> None:
    talk = Talk(Wire(stall_s=6.0, silence_s=20.0, counts=False))
    talk.begin("G1 X1")
    assert talk.sent() == ["N1 G1 X1"]
    talk.say("T:20.0 /0.0")
    written, events = talk.tick()
    assert written == b""
    assert events == [Failed("a command was not acknowledged, and this firmware cannot say why", Cause.UNCLEAR)]


def test_a_request_that_is_never_answered_fails_and_is_not_asked_for_ever() -> None:
    talk = Talk()
    talk.stream.request("M114", lambda reply: isinstance(reply, Position))
    assert talk.sent() == ["M114"]
    events: list[Event] = []
    for _ in range(WIRE.max_resends + 1):
        assert talk.say("ok") == []
        talk.tick()
        events = talk.say("Error:Line Number is not Last Line Number+1, Last Line: 0", "Resend: 1", "ok")
        talk.sent()
    assert events[-1] == Failed("M114 was sent 4 times and never answered", Cause.UNCLEAR)


# -- in the words of other firmware


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("Error: M555: Command is not supported", 'the firmware does not know the command "M555"'),
        ("Unknown M code: M555 X1", 'the firmware does not know the command "M555 X1"'),
        ("Error: M555: Bad or missing parameter", "did not carry out a command: M555: Bad or missing parameter"),
        ("Error: Soft Endstop X was exceeded - entire move ignored", "did not carry out a command: Soft Endstop X"),
        ("!!", "the printer stopped itself: it is halted"),
        ("Error: what nobody has read before", "the printer stopped itself: what nobody has read before"),
    ],
)
def test_an_error_never_counts_as_success_whoever_says_it(said: str, words: str) -> None:
    talk = Talk()
    talk.begin("M555 X1", "G1 X1")
    assert talk.sent() == ["N1 M555 X1"]
    (failed,) = talk.say(said, "ok")
    assert isinstance(failed, Failed)
    assert words in failed.reason
    assert talk.sent() == []


def test_an_error_fails_a_program_whose_line_waits_behind_a_request() -> None:
    talk = Talk(Wire(window_bytes=100, stall_s=6.0, silence_s=20.0))
    talk.begin("G1 X1")
    talk.stream.request("M105")
    assert talk.sent() == ["M105", "N1 G1 X1"]
    (failed,) = talk.say("echo: cold extrusion prevented")
    assert failed == Failed("the firmware did not carry out a command: cold extrusion prevented", Cause.SAID)


@pytest.mark.parametrize("said", ["ok - ignored", "Error: Bad command: %1 G1 X1\nok"])
def test_a_line_that_was_left_out_as_no_command_goes_out_again(said: str) -> None:
    talk = Talk()
    talk.begin("G1 X1")
    assert talk.sent() == ["N1 G1 X1"]
    assert Acked(1) not in talk.say(said)
    assert talk.sent() == ["N1 G1 X1"]
    assert talk.say("ok") == [Acked(1)]


def test_a_probe_that_was_asked_for_leaves_the_window_open() -> None:
    talk = Talk(Wire(window_bytes=127))
    talk.stream.probe()
    assert talk.stream.take(talk.now_s) == PROBE
    answer = ("Error:Line Number is not Last Line Number+1, Last Line: 0", "Resend: 1", "ok")
    assert Probed(0) in talk.say(*answer), "the error is the answer"
    assert talk.stream.window_bytes == 127


@pytest.mark.parametrize("said", ["Full RX Buffer", "RX timeout"])
def test_an_overrun_closes_the_window_though_nothing_is_asked_for_again(said: str) -> None:
    talk = Talk(Wire(window_bytes=100, stall_s=6.0, silence_s=20.0))
    assert talk.stream.window_bytes == 100
    talk.say(said)
    assert talk.stream.window_bytes == 0


def test_the_answer_of_smoothieware_to_a_bad_line_has_no_ok() -> None:
    talk = Talk()
    talk.begin("G1 X1")
    assert talk.sent() == ["N1 G1 X1"]
    talk.say("rs N1")
    assert talk.sent() == [], "an ok may still come"
    talk.now_s += RESEND_OK_S
    talk.stream.tick(talk.now_s)
    assert talk.sent() == ["N1 G1 X1"]


# -- what is unchecked, on a bad link


def test_a_request_that_arrives_changed_in_one_place_is_asked_again_at_once() -> None:
    talk = Talk()
    talk.stream.request("M114", lambda reply: isinstance(reply, Position))
    for _ in range(WIRE.max_resends):
        assert talk.sent() == ["M114"]
        assert talk.say('echo:Unknown command: "M314"') == [Heard(UnknownCommand("M314"))]
        assert talk.say("ok") == []
    assert talk.sent() == ["M114"]
    talk.say('echo:Unknown command: "M314"')
    assert talk.say("ok") == [Failed("M114 was sent 4 times and never answered", Cause.UNCLEAR)]


def test_what_somebody_else_has_asked_for_is_not_taken_for_a_changed_request() -> None:
    talk = Talk()
    talk.stream.request("M114", lambda reply: isinstance(reply, Position))
    assert talk.sent() == ["M114"]
    talk.say('echo:Unknown command: "G999 X1"', "ok")
    assert talk.sent() == [], "it may still be answered"
    answered = talk.say("X:1.00 Y:2.00 Z:3.00 E:0.00 Count X:0 Y:0 Z:0", "ok")[-1]
    assert isinstance(answered, Answered)


def test_a_probe_that_arrives_changed_in_one_place_is_sent_again_at_once() -> None:
    talk = Talk()
    talk.stream.probe()
    for _ in range(WIRE.max_resends):
        assert talk.sent() == [f"N{PROBE_NUMBER} M105"]
        talk.say(f'echo:Unknown command: "L{PROBE_NUMBER} M105"', "ok")
    assert talk.sent() == [f"N{PROBE_NUMBER} M105"]
    events = talk.say(f'echo:Unknown command: "L{PROBE_NUMBER} M105"', "ok")
    assert events[-1] == Failed("the printer talks, but does not say which line it took", Cause.UNCLEAR)


def test_a_changed_probe_after_a_silence_is_sent_again_past_what_is_in_flight() -> None:
    talk = Talk()
    talk.begin("G1 X1")
    assert talk.sent() == ["N1 G1 X1"]
    assert talk.tick() == (b"\n" + PROBE, [])
    talk.say(f'echo:Unknown command: "F{PROBE_NUMBER} M105"', "ok")
    assert talk.sent() == [f"N{PROBE_NUMBER} M105"]
    events = talk.say("Error:Line Number is not Last Line Number+1, Last Line: 1", "Resend: 2", "ok")
    assert Acked(1) in events


def test_a_changed_request_that_was_answered_meanwhile_is_left_alone() -> None:
    talk = Talk()
    talk.stream.request("M105")
    assert talk.sent() == ["M105"]
    talk.say('echo:Unknown command: "M305"')
    talk.stream._flight.clear()  # as after a probe
    assert talk.say("ok") == []


def test_a_firmware_that_is_busy_has_taken_the_line() -> None:
    talk = Talk()
    talk.say("echo:busy: processing")
    assert not talk.stream.blocked
    talk.begin("M109 S200")
    assert talk.sent() == ["N1 M109 S200"]
    assert not talk.stream.blocked
    talk.say("echo:busy: processing")
    assert talk.stream.blocked
    assert talk.say("ok") == [Acked(1)]
    assert not talk.stream.blocked
