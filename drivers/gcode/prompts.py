"""What a firmware asks the people at the machine, and the program's host, while it waits for them. PURE.

Texts are those of Marlin/src/feature/host_actions.cpp, pause.cpp and runout.cpp (2.1): ``//action:paused`` (it has
paused itself), ``//action:pause`` (the host is to pause), ``//action:prompt_begin TEXT`` with a ``prompt_button TEXT``
for each choice (``prompt_choice`` in older ones), ``prompt_show``, ``prompt_end``; and ``echo:busy: paused for user``.

Rules

1. The firmware waits for a person from its ``busy: paused`` or its ``paused`` on, until the command that waits is
   acknowledged, or until it says ``resumed``.
2. A prompt says for what; alone it holds nothing up: some only inform, and some stand beside a print that goes on.
3. ``busy: processing`` after ``busy: paused`` says that what it waited for has come. One command may wait several
   times: M600 asks for the filament, and then whether enough of it has come out.
"""

from __future__ import annotations

import enum
import re

from drivers.gcode.replies import Action, Busy, Reply, Text

_GOES_ON = re.compile(r"\b(?:continue|resume|ok|yes|done|reheat)\b", re.IGNORECASE)
"""Marlin's own: Continue, and Reheat where a nozzle has timed out."""


class Wish(enum.Enum):
    """What a person at the printer wants the host to do."""

    PAUSE = enum.auto()
    RESUME = enum.auto()
    CANCEL = enum.auto()


class Prompts:
    """Fed with all that the firmware says. `reason` says of the last wish or pause why, in words; may be empty."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Nothing is carried out: nobody is asked anything."""
        self.reason = ""
        self.buttons: list[str] = []
        self._text = ""  # the prompt's
        self._said = ""  # the last echo: what M0 shows, or what to do with the filament
        self._paused = False  # by the firmware itself
        self._waits = False  # `busy: paused` was said last
        self._waited = False  # and whether it ever was, in this command
        self._begun = 0  # prompts
        self._waits_begun = 0

    @property
    def held(self) -> bool:
        """Whether the firmware waits for a person."""
        return self._paused or self._waits

    @property
    def waits(self) -> bool:
        """Whether it has said so last."""
        return self._waits

    @property
    def question(self) -> tuple[int, int]:
        """Which question stands: another value, another question."""
        return (self._begun, 0) if self._begun else (0, self._waits_begun)

    @property
    def informs(self) -> bool:
        """Whether the prompt that is shown only wants to be seen."""
        return all(button.lower() == "dismiss" for button in self.buttons)

    @property
    def words(self) -> str:
        """What it waits for."""
        said = [text for text in (self.reason, self._text, self._said) if text]
        return ": ".join(dict.fromkeys(said)) or "the printer waits for a person"

    @property
    def choice(self) -> int | None:
        """The number of the button that lets the print go on, for ``M876 S``."""
        return next((number for number, text in enumerate(self.buttons) if _GOES_ON.search(text)), None)

    def hear(self, reply: Reply) -> Wish | None:
        """Something was said; what a person wants, if it is that."""
        match reply:
            case Busy(what=what):
                waits = what.startswith("paused")
                self._waits_begun += waits and not self._waits
                self._waits = waits
                self._waited = self._waited or waits
            case Text(text=text) if text.startswith("echo:"):
                self._said = text.removeprefix("echo:").strip()
            case Action(text=text):
                return self._action(*text.partition(" ")[::2])
            case _:
                pass
        return None

    def acknowledged(self) -> None:
        """A command of the program is done: whatever waited in it goes on."""
        if self._waited:
            self._paused = False
        self._waits = self._waited = False
        self._said = ""
        if not self._paused:
            self.reason = ""

    def _action(self, what: str, rest: str) -> Wish | None:
        match what:
            case "prompt_begin":
                self._text, self.buttons = rest.strip(), []
                self._begun += 1
            case "prompt_button" | "prompt_choice":
                self.buttons.append(rest.strip())
            case "prompt_end":
                self._text, self.buttons = "", []
            case "paused":
                self._paused, self.reason = True, _reason(rest)
            case "resumed":
                self._paused = self._waits = self._waited = False
            case "out_of_filament":
                self.reason = _reason("filament_runout")
            case "pause":
                self.reason = _reason(rest) or self.reason
                return Wish.PAUSE
            case "resume":
                self._paused = False
                return Wish.RESUME
            case "cancel":
                return Wish.CANCEL
            case _:
                pass
        return None


def _reason(text: str) -> str:
    """``filament_runout 0`` (ACTION_REASON_ON_FILAMENT_RUNOUT), or the words themselves."""
    return "the filament has run out" if text.startswith("filament_runout") else text.strip()
