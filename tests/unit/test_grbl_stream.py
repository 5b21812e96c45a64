"""The core of the grbl dialect, byte by byte and second by second."""

from __future__ import annotations

import pytest

from drivers.gcode.events import Acked, Answered, Cause, Event, Failed, Heard
from drivers.gcode.framing import Wire
from drivers.gcode.grbl import (
    HOLD,
    HOLD_S,
    HOMING_S,
    POLL_S,
    RESET,
    RESET_S,
    SETTLE_POLL_S,
    STATUS,
    GrblStream,
    unsendable,
)
from drivers.gcode.grbl_replies import introduces, parse
from drivers.gcode.replies import Text

BANNER = "\r\nGrbl 1.1h ['$' for help]"
WIRE = Wire(window_bytes=128, stall_s=10.0, silence_s=20.0)


class Bench:
    """A stream, and a controller that says what the test has it say."""

    def __init__(self, wire: Wire = WIRE) -> None:
        self.now_s = 0.0
        self.stream = GrblStream(wire, 0.0)
        self.heard: list[str] = []

    def send(self) -> bytes:
        return self.stream.take(self.now_s)

    def begin(self, *commands: str) -> bytes:
        self.stream.begin(iter(commands))
        return self.send()

    def say(self, *lines: str) -> list[Event]:
        """Events but `Heard`, whose texts are kept."""
        return self.only_facts(self.stream.receive("".join(f"{line}\r\n" for line in lines).encode(), self.now_s))

    def wait(self, seconds: float) -> tuple[bytes, list[Event]]:
        """What the next ticks up to then write and tell."""
        out, events = b"", []
        until_s = self.now_s + seconds
        while (deadline_s := self.stream.deadline_s()) is not None and deadline_s <= until_s:
            self.now_s = max(self.now_s, deadline_s)
            data, told = self.stream.tick(self.now_s)
            out += data + self.send()
            events += told
        self.now_s = until_s
        return out, self.only_facts(events)

    def only_facts(self, events: list[Event]) -> list[Event]:
        self.heard += [e.reply.text for e in events if isinstance(e, Heard) and isinstance(e.reply, Text)]
        return [event for event in events if not isinstance(event, Heard)]


# -- lines


def test_lines_go_out_plain_up_to_the_window_and_each_answer_lets_more_go() -> None:
    bench = Bench(Wire(window_bytes=12))
    assert bench.begin("G0 X1", "G0 X2", "G0 X3") == b"G0 X1\nG0 X2\n"
    assert bench.say("ok") == [Acked(1)]
    assert bench.send() == b"G0 X3\n"
    assert bench.stream.acked == 1


def test_without_a_window_one_line_is_in_flight() -> None:
    bench = Bench(Wire())
    assert bench.begin("G0 X1", "G0 X2") == b"G0 X1\n"
    assert bench.send() == b""
    bench.say("ok")
    assert bench.send() == b"G0 X2\n"


def test_a_line_longer_than_the_window_goes_alone() -> None:
    bench = Bench(Wire(window_bytes=4))
    assert bench.begin("G0 X1", "G0 X2") == b"G0 X1\n"


def test_the_controllers_own_figure_narrows_the_window_while_nothing_is_in_flight() -> None:
    bench = Bench()
    bench.say("<Idle|Bf:15,12>")
    assert bench.stream.window_bytes == 12
    assert bench.begin("G0 X1", "G0 X2", "G0 X3") == b"G0 X1\nG0 X2\n"
    bench.say("<Run|Bf:14,0>")
    assert bench.stream.window_bytes == 12


def test_a_program_is_finished_when_idle_was_said_twice_after_the_last_ok() -> None:
    bench = Bench()
    bench.begin("G0 X1")
    bench.say("<Idle>")
    assert bench.say("ok") == [Acked(1)]
    assert bench.send() == STATUS
    assert not bench.stream.drained
    bench.say("<Idle>")
    assert not bench.stream.drained
    bench.say("<Run>")
    bench.say("<Idle>")
    assert not bench.stream.drained
    assert bench.wait(SETTLE_POLL_S) == (STATUS, [])
    bench.say("<Idle>")
    assert bench.stream.drained
    assert bench.stream.idle
    assert bench.stream.deadline_s() is None


def test_an_empty_program_is_confirmed_like_any() -> None:
    bench = Bench()
    assert bench.begin() == STATUS
    bench.say("<Idle>", "<Idle>")
    assert bench.stream.drained


def test_what_is_cut_off_is_not_sent_and_the_rest_is_waited_for() -> None:
    bench = Bench(Wire(window_bytes=12))
    bench.begin("G0 X1", "G0 X2", "G0 X3", "G0 X4")
    assert bench.stream.cut() == 2
    assert bench.say("ok", "ok") == [Acked(1), Acked(2)]
    assert bench.send() == STATUS
    assert not bench.stream.drained
    bench.say("<Idle>", "<Idle>")
    assert bench.stream.drained
    assert bench.stream.cut() == 2


def test_a_program_is_begun_only_when_none_is() -> None:
    bench = Bench()
    bench.begin("G0 X1")
    with pytest.raises(RuntimeError, match="idle stream"):
        bench.stream.begin(iter(()))


@pytest.mark.parametrize("command", ["G0 X1?", "(what!)", "G0~", "M0\x18", "G0 Xé", "G0\x84"])
def test_a_line_with_a_real_time_byte_in_it_is_never_sent(command: str) -> None:
    bench = Bench()
    assert unsendable(command) is not None
    assert unsendable("G1 X1.5 (fine)") is None
    assert bench.begin("G0 X1", command, "G0 X2") == b"G0 X1\n" + HOLD + STATUS
    bench.say("<Hold:0>")
    assert bench.send() == RESET
    (failed,) = bench.say(BANNER)
    assert isinstance(failed, Failed)
    assert failed.cause is Cause.SAID
    assert "line 2" in failed.reason
    with pytest.raises(ValueError, match="acts on the controller"):
        bench.stream.request(command)


# -- requests


def test_a_request_is_answered_with_what_was_said_and_goes_before_the_program() -> None:
    bench = Bench(Wire(window_bytes=12))
    bench.stream.request("$I", introduces)
    assert bench.send() == b"$I\n"
    assert bench.say("ok", "error:22") == []
    (answered,) = bench.say("[VER:1.1h.20190830:]", "[OPT:V,15,128]", "<Idle>", "ok")
    assert answered == Answered("$I", (parse("[VER:1.1h.20190830:]"), parse("[OPT:V,15,128]")))


def test_requests_share_the_window() -> None:
    bench = Bench(Wire(window_bytes=6))
    bench.stream.request("M5")
    bench.stream.request("M9 M5")
    assert bench.send() == b"M5\n"
    assert bench.say("ok") == [Answered("M5", ())]
    assert bench.send() == b"M9 M5\n"


def test_a_refused_request_says_so_and_stops_nothing() -> None:
    bench = Bench()
    bench.stream.request("$N")
    bench.stream.request("$I", introduces)
    bench.send()
    assert bench.say("error:3") == [Answered("$N", (parse("error:3"),))]
    assert bench.say("error:8") == [Answered("$I", (parse("error:8"),))]
    assert bench.stream.idle


def test_the_status_is_asked_for_past_the_window() -> None:
    bench = Bench(Wire())
    bench.begin("G0 X1")
    bench.stream.request("?")
    assert bench.send() == STATUS
    status = "<Run|MPos:0.000,0.000,0.000>"
    assert bench.say(status) == [Answered("?", (parse(status),))]


def test_an_answer_that_nobody_waits_for_moves_nothing_before_a_program() -> None:
    bench = Bench()
    assert bench.say("ok", "error:1") == []
    assert bench.stream.idle


def test_what_is_said_to_people_reaches_them_and_moves_nothing() -> None:
    bench = Bench()
    bench.begin("M30")
    assert bench.say("[MSG:Pgm End]", ">G21:ok") == []
    assert bench.heard == ["Pgm End", ">G21:ok"]
    assert bench.say("ok") == [Acked(1)]


# -- failures


def stopped(bench: Bench, *answer: str) -> Failed:
    """The stop runs its course: hold, stand, reset; what is told in the end."""
    assert bench.send() == HOLD + STATUS
    assert bench.say("<Run>", "<Hold:1>") == []
    assert bench.send() == b""
    assert bench.say("<Hold:0>") == []
    assert bench.send() == RESET
    *_, failed = bench.say(*(answer or (BANNER,)))
    assert isinstance(failed, Failed)
    assert bench.send() == b""
    return failed


def test_a_refused_line_holds_resets_and_then_fails() -> None:
    bench = Bench()
    bench.begin("G1 X1", "G1 X2", "G1 X3")
    assert bench.say("error:22") == []
    bench.now_s += 0.1
    failed = stopped(bench)
    assert failed == Failed("line 1 (G1 X1) was refused: error:22 (no feed rate is set)", Cause.SAID)
    assert bench.stream.acked == 0
    assert bench.say("ok") == []


def test_answers_that_come_during_the_stop_still_count() -> None:
    bench = Bench()
    bench.begin("G1 X1", "G1 X2", "G1 X3")
    bench.say("error:22")
    assert bench.send() == HOLD + STATUS
    assert bench.say("error:22", "ok") == [Acked(3)]
    assert bench.say("ok") == []


def test_a_reset_that_fell_into_motion_is_told() -> None:
    bench = Bench()
    bench.begin("G1 X1")
    bench.say("error:22")
    failed = stopped(bench, "ALARM:3", BANNER, "[MSG:'$H'|'$X' to unlock]")
    assert failed.reason.endswith("then ALARM:3 (reset while in motion: the position is probably lost)")


def test_one_answer_too_many_breaks_the_accounting() -> None:
    bench = Bench(Wire())
    bench.begin("G0 X1", "G0 X2")
    bench.say("ok", "ok")
    assert stopped(bench).reason == "the controller answered more lines than it was sent"


def test_an_alarm_latches_at_once() -> None:
    bench = Bench()
    bench.begin("G0 X1", "G0 X2")
    (failed,) = bench.say("ALARM:2", "error:9")
    why = "the controller stopped: ALARM:2 (the motion would leave the machine's travel; the position is kept)"
    assert failed == Failed(why, Cause.SAID)
    assert bench.send() == b""
    assert bench.stream.deadline_s() is None
    assert bench.stream.tick(100.0) == (b"", [])
    bench.stream.halt(0.0)
    assert bench.send() == b""


def test_an_alarm_that_was_not_heard_is_seen_in_the_status() -> None:
    bench = Bench()
    bench.say("<Alarm>")
    bench.begin("G0 X1")
    (failed,) = bench.say("<Alarm:2>")
    assert isinstance(failed, Failed)
    assert failed.reason == "the controller is locked by an alarm: <Alarm:2>"


def test_a_banner_is_a_restart() -> None:
    bench = Bench()
    bench.begin("G0 X1")
    assert bench.say(BANNER) == [Failed("the controller has restarted", Cause.RESTARTED)]


def test_a_controller_that_is_idle_and_owes_an_answer_has_lost_something() -> None:
    bench = Bench()
    bench.begin("G0 X1")
    for _ in range(9):
        assert bench.wait(1.0) == (STATUS, [])
        bench.say("<Idle>")
    bench.say("<Run>")
    for _ in range(10):
        assert bench.wait(1.0) == (STATUS, [])
        bench.say("<Idle>")
    out, events = bench.wait(1.0)
    assert out.endswith(HOLD + STATUS)
    assert events == []
    assert bench.stream.time_outs == 1
    bench.say("<Idle>", "<Idle>")  # from before the hold
    assert bench.send() == b""
    bench.say("<Hold:0>")
    assert bench.send() == RESET
    assert bench.say(BANNER) == [Failed('the controller is idle and has not answered "G0 X1"', Cause.SILENT)]


def test_a_dwell_is_idle_and_owes_an_answer_for_as_long_as_it_takes() -> None:
    bench = Bench()
    bench.begin("G4 P30")
    for _ in range(39):
        assert bench.wait(1.0) == (STATUS, [])
        bench.say("<Idle>")
    assert bench.say("ok") == [Acked(1)]


def test_silence_is_noticed_and_any_byte_ends_it() -> None:
    bench = Bench()
    bench.begin("G0 X1")
    out, events = bench.wait(19.0)
    assert (out, events) == (STATUS * 19, [])
    bench.stream.receive(b"#", bench.now_s)
    assert bench.wait(19.0)[1] == []
    assert bench.wait(2.0)[1] == [Failed("nothing was heard for 20 s", Cause.SILENT)]


def test_an_asked_status_that_never_comes_is_silence_too() -> None:
    bench = Bench()
    bench.now_s = 100.0
    bench.stream.request("?")
    assert bench.send() == STATUS
    assert bench.wait(19.5)[1] == []
    assert bench.wait(1.0)[1] == [Failed("nothing was heard for 20 s", Cause.SILENT)]


def test_homing_may_be_silent_for_longer() -> None:
    bench = Bench()
    bench.stream.request("$H")
    bench.send()
    assert bench.wait(HOMING_S - 1)[1] == []
    assert bench.say("ok") == [Answered("$H", ())]


def test_a_tick_before_its_time_does_nothing() -> None:
    bench = Bench()
    bench.begin("G0 X1")
    assert bench.stream.deadline_s() == POLL_S
    assert bench.stream.tick(POLL_S / 2) == (b"", [])


# -- stopping on request


def test_a_stop_on_request_leaves_a_stream_that_can_go_on() -> None:
    bench = Bench()
    bench.begin("G0 X1", "G0 X2")
    bench.stream.request("M5")
    bench.stream.request("$G")
    bench.send()
    bench.stream.halt(bench.now_s)
    bench.stream.halt(bench.now_s)
    bench.stream.request("M9")
    assert bench.stream.halting
    assert bench.send() == HOLD + STATUS
    bench.say("<Hold:0>")
    assert bench.send() == RESET
    banner = parse(BANNER)
    assert bench.say(BANNER) == [Answered("M5", (banner,)), Answered("$G", (banner,))]
    assert bench.stream.drained
    assert not bench.stream.halting
    assert bench.send() == b"M9\n"
    bench.say("ok")
    assert bench.begin("G0 X3") == b"G0 X3\n"


def test_a_stop_on_request_that_lost_the_position_fails() -> None:
    bench = Bench()
    bench.begin("G0 X1")
    bench.stream.halt(bench.now_s)
    bench.send()
    assert bench.wait(HOLD_S - 0.01)[0].count(RESET) == 0
    assert bench.wait(0.01)[0].endswith(RESET)
    assert bench.say("ALARM:3") == []
    (failed,) = bench.say(BANNER)
    assert failed == Failed("stopped, but ALARM:3 (reset while in motion: the position is probably lost)", Cause.SAID)


def test_a_stop_that_is_not_confirmed_is_unknown() -> None:
    bench = Bench()
    bench.begin("G1 X1")
    bench.say("error:22")
    bench.send()
    assert bench.wait(HOLD_S)[0].endswith(RESET)
    out, events = bench.wait(RESET_S)
    assert out.count(STATUS) > 10
    (failed,) = events
    assert isinstance(failed, Failed)
    assert failed.cause is Cause.SILENT
    assert failed.reason.endswith("error:22 (no feed rate is set); the stop was not confirmed")
