"""A printer at rest: what it is asked, and what counts as its answer."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from drivers.gcode import resting
from drivers.gcode.device import Device
from drivers.gcode.identity import Firmware
from drivers.gcode.profile import FirmwareTable
from drivers.gcode.replies import Reply, parse
from drivers.gcode.resting import CARD_QUESTIONS, Resting
from edge.driver import ForeignWork, MachineError, Motion, Observation

FREE = "Not SD printing"
MANGLED = "//action:pause"
"""What Marlin may say to M25, which one flipped bit makes of M27."""


class Printer:
    """Answers each question with the next of `answers`, and with the last again."""

    def __init__(self, *answers: str) -> None:
        self.asked: list[str] = []
        self.told: list[Observation] = []
        self._answers = list(answers)
        self._polls = 0
        self.then: Callable[[], None] = lambda: None  # happens right after an answer

    async def ask(self, command: str) -> tuple[Reply, ...]:
        self.asked.append(command)
        said = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        replies = tuple(parse(said))
        for reply in replies:
            self._resting.heard(reply)
        self.then()
        return replies

    async def look_at_heaters(self) -> None:
        self.asked.append("M105")

    @property
    def failure(self) -> MachineError | None:
        """Gone after the second poll."""
        return MachineError("gone") if self._polls == 2 else None

    @property
    def idle(self) -> bool:
        """Looked at once a poll, right after its time has passed."""
        self._polls += 1
        self._device.reports += self._reports
        return True

    def resting(
        self,
        *,
        card: bool = True,
        built_in: bool = False,
        names_file: bool = False,
        at_rest: bool = True,
        distrusted: bool = False,
        reports: bool = False,
    ) -> Resting:
        self._reports = reports
        self.stream = self
        self.distrusted = distrusted
        device = SimpleNamespace(
            session=self,
            firmware=Firmware("Marlin", caps={"SDCARD": card}),
            clock=SimpleNamespace(mono_s=lambda: 10.0),
            context=SimpleNamespace(emit=self.told.append),
            look_at_heaters=self.look_at_heaters,
            see=lambda state, detail="": None,
            unprotected=lambda: "",
            reports=0,
            known_profile=SimpleNamespace(
                wire=SimpleNamespace(busy_interval_s=2.0),
                firmware=FirmwareTable(names_open_file=names_file, sd_card="built-in" if built_in else "reported"),
            ),
            heaters={},
        )
        self._resting = Resting(cast(Device, device), lambda: at_rest, lambda: False)
        self._device = device
        return self._resting


async def test_a_printer_whose_card_stands_still_is_free() -> None:
    printer = Printer(FREE)
    await printer.resting(at_rest=False).must_be_free()
    assert printer.asked == ["M27"]


async def test_one_of_which_the_profile_knows_that_it_has_a_card_is_asked() -> None:
    printer = Printer("SD print paused")
    with pytest.raises(MachineError, match="somebody's print from the SD card is paused"):
        await printer.resting(card=False, built_in=True, at_rest=False).must_be_free()
    assert printer.asked == ["M27"]


async def test_a_file_that_is_open_is_asked_for_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "POLL_S", 0.0)
    printer = Printer(FREE, "Current file: CUP~1.GCO", FREE, "Current file: (no file)", FREE)
    looking = printer.resting(names_file=True, reports=True)
    await looking.look_for_others(closely=True)
    await looking.keep_looking()
    assert printer.asked == ["M27", "M27 C", "M27", "M27 C", "M27"]
    assert len([seen for seen in printer.told if isinstance(seen, ForeignWork)]) == 1


async def test_one_without_a_card_is_not_asked() -> None:
    printer = Printer(FREE)
    await printer.resting(card=False).must_be_free()
    assert printer.asked == []


async def test_an_answer_to_something_else_says_nothing_and_it_is_asked_again() -> None:
    printer = Printer(MANGLED, "SD printing byte 7/60000")
    with pytest.raises(MachineError, match="at work: somebody prints something from the SD card") as caught:
        await printer.resting(at_rest=False).must_be_free()
    assert caught.value.motion is Motion.NONE
    assert printer.asked == ["M27", "M27"]
    assert [type(seen) for seen in printer.told] == [ForeignWork]


async def test_what_was_said_is_heard_once_and_not_again_after_what_was_said_since() -> None:
    printer = Printer(FREE)
    looking = printer.resting()

    def somebody_chooses_a_file_at_once() -> None:
        for reply in parse("File opened: CUP~1.GCO Size: 60000"):
            looking.heard(reply)

    printer.then = somebody_chooses_a_file_at_once
    await looking.look_for_others()
    for reply in parse("SD printing byte 5/60000"):
        looking.heard(reply)
    (work,) = (seen for seen in printer.told if isinstance(seen, ForeignWork))
    assert work.detail == "somebody printed CUP~1.GCO from the printer's SD card"


async def test_nothing_begins_at_a_printer_that_does_not_say_whether_it_prints() -> None:
    printer = Printer(MANGLED)
    with pytest.raises(MachineError, match="does not say whether it prints from its card") as caught:
        await printer.resting().must_be_free()
    assert caught.value.motion is Motion.NONE
    assert printer.asked == ["M27"] * CARD_QUESTIONS


@pytest.mark.parametrize(
    ("at_rest", "distrusted", "asked"),
    [(True, False, ["M105", "M27"]), (False, False, []), (True, True, ["M105"])],
    ids=["at rest", "a run goes on or is held", "its line keeps erring"],
)
async def test_only_a_printer_at_rest_is_asked_and_only_on_a_good_line_for_its_card(
    monkeypatch: pytest.MonkeyPatch, at_rest: bool, distrusted: bool, asked: list[str]
) -> None:
    monkeypatch.setattr(resting, "POLL_S", 0.0)
    printer = Printer(FREE)
    await printer.resting(at_rest=at_rest, distrusted=distrusted).keep_looking()
    assert printer.asked == asked * 2


async def test_a_printer_that_reports_its_temperatures_is_not_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resting, "POLL_S", 0.0)
    printer = Printer(FREE)
    await printer.resting(reports=True).keep_looking()
    assert printer.asked == ["M27", "M27"]
