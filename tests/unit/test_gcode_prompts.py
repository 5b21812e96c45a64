"""Whether a firmware waits for a person, for what, and which button lets it go on."""

from __future__ import annotations

import pytest

from drivers.gcode.prompts import Prompts, Wish
from drivers.gcode.replies import parse


def heard(*lines: str) -> Prompts:
    prompts = Prompts()
    for line in lines:
        for reply in parse(line):
            assert prompts.hear(reply) is None
    return prompts


def prompt(text: str, *buttons: str) -> list[str]:
    choices = [f"//action:prompt_button {button}" for button in buttons]
    return ["//action:prompt_end", f"//action:prompt_begin {text}", *choices, "//action:prompt_show"]


def wish(line: str) -> Wish | None:
    (reply,) = parse(line)
    return Prompts().hear(reply)


def test_m0_waits_until_it_is_acknowledged() -> None:
    prompts = heard("echo:Click please", *prompt("M0 Stop", "Continue"))
    assert not prompts.held, "a prompt alone holds nothing up"
    prompts = heard("echo:Click please", *prompt("M0 Stop", "Continue"), "echo:busy: paused for user")
    assert (prompts.held, prompts.words, prompts.choice) == (True, "M0 Stop: Click please", 0)
    prompts.acknowledged()
    assert not prompts.held


def test_a_run_out_is_over_when_the_firmware_says_so_and_not_with_the_line_before_it() -> None:
    prompts = heard(*prompt("FilamentRunout T0"), "//action:paused filament_runout 0")
    prompts.acknowledged()
    assert (prompts.held, prompts.words) == (True, "the filament has run out: FilamentRunout T0")
    for line in ("echo:busy: paused for input", *prompt("Paused", "PurgeMore", "Continue")):
        prompts.hear(parse(line)[0])
    assert prompts.choice == 1
    prompts.hear(parse("//action:resumed")[0])
    assert not prompts.held
    prompts.acknowledged()
    assert prompts.reason == ""


def test_a_pause_of_its_own_ends_with_the_command_that_waited() -> None:
    prompts = heard("//action:paused", "echo:busy: paused for user")
    assert prompts.words == "the printer waits for a person"
    prompts.acknowledged()
    assert not prompts.held


def test_no_button_is_guessed_at() -> None:
    assert heard(*prompt("Paused", "PurgeMore", "DisableRunout")).choice is None
    assert heard(*prompt("Heater Timeout", "Reheat")).choice == 0
    assert heard("//action:prompt_begin Ready?", "//action:prompt_choice Wait", "//action:prompt_choice OK").choice == 1
    assert heard(*prompt("M0 Stop", "Continue"), "//action:prompt_end").choice is None


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("//action:pause", Wish.PAUSE),
        ("//action:pause filament_runout 0", Wish.PAUSE),
        ("//action:resume", Wish.RESUME),
        ("//action:cancel", Wish.CANCEL),
        ("//action:out_of_filament T0", None),
        ("//action:notification Hello", None),
        ("echo:busy: processing", None),
        ("X:1.00 Y:1.00 Z:1.00 E:0.00", None),
        ("Something else", None),
    ],
)
def test_what_people_at_the_printer_want(line: str, wanted: Wish | None) -> None:
    assert wish(line) is wanted


def test_the_reason_of_a_pause_is_kept() -> None:
    prompts = Prompts()
    for line in ("//action:out_of_filament T0", "//action:pause"):
        prompts.hear(parse(line)[0])
    assert prompts.reason == "the filament has run out"
    prompts.forget()
    assert (prompts.reason, prompts.held) == ("", False)


def test_processing_after_a_wait_says_that_it_is_over_and_the_next_wait_is_another_question() -> None:
    prompts = heard("echo:busy: paused for user")
    first = prompts.question
    assert (prompts.held, prompts.waits) == (True, True)
    prompts.hear(parse("echo:busy: paused for user")[0])
    assert prompts.question == first
    prompts.hear(parse("echo:busy: processing")[0])
    assert not prompts.held
    prompts.hear(parse("echo:busy: paused for user")[0])
    assert prompts.question != first


def test_a_pause_of_its_own_outlasts_the_wait_in_it() -> None:
    prompts = heard("//action:paused", "echo:busy: paused for user", "echo:busy: processing")
    assert prompts.held
    prompts.acknowledged()
    assert not prompts.held


def test_each_prompt_is_a_question_and_one_that_can_only_be_dismissed_asks_nothing() -> None:
    prompts = heard(*prompt("Nozzle Parked", "Continue"))
    first = prompts.question
    assert not prompts.informs
    for line in prompt("Resuming", "Dismiss"):
        prompts.hear(parse(line)[0])
    assert prompts.question != first
    assert prompts.informs
