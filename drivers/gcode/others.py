"""What is done at a printer that no run of ours has asked for, as far as the printer says it.

Rules

1. A print from the SD card is somebody's work, from the first time that the printer says so to the last: what it made
   is on the plate, and a line of ours in the middle of it would be carried out. One that stands paused is no less;
   Marlin says then that it does not print, but that its file is open. So is one that was chosen and not begun.
2. Who heats the nozzle while no run is going on prints, or changes the filament: both leave something behind. What was
   hot when we came may be of a run of our own.
3. ``busy`` while we have asked for nothing is somebody at the display. It leaves nothing behind, and nothing begins
   meanwhile.

Texts: Marlin/src/core/language.h and Marlin/src/sd/cardreader.cpp (2.1, `report_status`, `printSelectedFilename`; a
file that is opened is told to all serial ports). Prusa-Firmware 3.14, Firmware/cardreader.cpp (`getStatus`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from drivers.gcode.replies import Busy, Reply, Text
from edge.driver import ForeignWork

_FILE = re.compile(r"File opened:\s*(?P<name>.*?)\s*Size:")
_PRINTING = re.compile(r"SD printing byte (?P<done>\d+)/(?P<total>\d+)")
_OVER = re.compile(r"Not SD printing|Done printing file")
_PAUSED = "SD print paused"
_SAVED = "Print saved"
_TOLD = re.compile(rf"Not SD printing|SD printing byte \d|{_PAUSED}|{_SAVED}")
_OPEN = re.compile(r"Current file:\s*(?P<name>\S.*)")
_NO_FILE = "(no file)"
_END_IT = "; end it at the printer"


def tells_of_card(reply: Reply) -> bool:
    """Whether this is the answer to M27."""
    return isinstance(reply, Text) and bool(_TOLD.match(reply.text.removeprefix("echo:").strip()))


class Others:
    """Fed with what an idle printer says. `tell` is called once for each piece of work that was seen."""

    def __init__(self, tell: Callable[[ForeignWork], None]) -> None:
        self._tell = tell
        self._file = ""  # that was opened last, for whatever
        self._prints = ""  # the print from the SD card that goes on, in words
        self._told = False  # of that print
        self._open = ""  # the file that is open, though nothing is said to print
        self._told_open = False
        self._saved = False  # a print of a host, in the printer's own memory
        self._hot: set[str] = set()  # nozzles that others have heated
        self._rising: set[str] = set()  # those of which only one report says so
        self._busy_until_s = 0.0

    @property
    def prints(self) -> str:
        """The print from the SD card that goes on, in words; empty if there is none."""
        return self._prints

    @property
    def is_open(self) -> bool:
        """Whether a file was open when the printer was last asked for it."""
        return bool(self._open)

    def doing(self, now_s: float) -> str:
        """What somebody else does now, in words; empty if nothing is known of anything."""
        if self._prints:
            return self._prints
        if self._open:
            return f"the file {self._open} of the SD card is open, so a print of it may stand paused{_END_IT}"
        if self._saved:
            return f"a print of a host stands paused in it{_END_IT}"
        return "busy with what somebody asked for at the printer" if now_s < self._busy_until_s else ""

    def heard(self, reply: Reply, now_s: float, busy_for_s: float) -> None:
        """The idle printer has said something. After a ``busy`` it counts as busy for `busy_for_s`."""
        match reply:
            case Busy():
                self._busy_until_s = max(self._busy_until_s, now_s + busy_for_s)
            case Text(text=text):
                self._read(text.removeprefix("echo:").strip())
            case _:
                pass

    def heated(self, name: str, before_degc: float, target_degc: float) -> None:
        """What an idle printer's heater is to reach, and what it was before."""
        if not name.startswith("T"):
            return
        if target_degc <= 0.0:
            self._hot.discard(name)
            self._rising.discard(name)
        elif before_degc <= 0.0:
            self._rising.add(name)
        elif name in self._rising:  # said twice: one report may have been changed on its way
            self._rising.discard(name)
            if not self._hot:
                self._tell_of_heat(target_degc)
            self._hot.add(name)

    def _tell_of_heat(self, target_degc: float) -> None:
        if self._file or self._prints:  # that is what it is heated for
            self._tell_of_print()
            return
        words = f"somebody heated the nozzle to {target_degc:g} degC at the printer while no run was going on"
        self._tell(ForeignWork(secrets.token_hex(16), words))

    def _tell_of_print(self) -> None:
        if not self._told:
            self._told = True
            if self._told_open:
                return  # of that file
            what = self._file or "something"
            self._tell(ForeignWork(secrets.token_hex(16), f"somebody printed {what} from the printer's SD card"))

    def _tell_of_file(self, name: str) -> None:
        self._open = name
        if name and not self._told_open:
            words = f"somebody has begun {name} from the printer's SD card"
            self._tell(ForeignWork(secrets.token_hex(16), words))
        self._told_open = bool(name)

    def _read(self, text: str) -> None:
        if found := _FILE.match(text):
            self._file = found["name"]
        elif found := _OPEN.match(text):
            self._tell_of_file("" if found["name"] == _NO_FILE else found["name"])
        elif text == _PAUSED:
            self._prints = "somebody's print from the SD card is paused"
            self._tell_of_print()
        elif text == _SAVED:
            self._saved = True
        elif _OVER.match(text):
            self._file, self._prints, self._told, self._saved = "", "", False, False
        elif (found := _PRINTING.match(text)) and int(found["total"]):
            self._prints = f"somebody prints {self._file or 'something'} from the SD card"
            self._tell_of_print()
