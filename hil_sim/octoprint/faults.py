"""What can go wrong with a simulated OctoPrint: `--fault NAME[=ARG]`, or ``POST /hil/fault`` while it runs.

| name | argument | what happens |
|---|---|---|
| `status` | HTTP status | every answer of the API is this error: 401, 403, 409, 500 … |
| `start-status` | HTTP status | so is the answer to a start, and nothing is started |
| `lose-start-answer` | | the print is started, and the connection cut in place of the answer |
| `slow` | seconds | every answer comes so much later |
| `silent-push` | | the push socket stays open and says nothing |
| `corrupt-upload` | | uploads are stored with one byte changed |
| `safe-mode` | reason | it says that it is in safe mode |
| `version` | version | it says that it is this version |
| `lose-files` | | at once: all files are gone |
| `serial-error` | text | at once: the firmware reports this error, and is disconnected |
| `serial-drop` | | at once: the serial line is pulled |
| `restart` | | at once: as after kill -9, no record of a print that was going on, and all sessions end |

A fault without the argument that it needs, or with an empty one while it runs, is switched off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

NAMES = ("status", "start-status", "lose-start-answer", "slow", "silent-push", "corrupt-upload", "safe-mode", "version")
AT_ONCE = ("lose-files", "serial-error", "serial-drop", "restart")
FLAGS = frozenset({"lose-start-answer", "silent-push", "corrupt-upload"})


class FaultError(ValueError):
    """A fault that does not exist, or an argument that does not fit it; the text is for the person who typed it."""


@dataclass
class Faults:
    """Those that are on, with their arguments."""

    on: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Faults:
        """From `NAME` or `NAME=ARG` texts; raises `FaultError`."""
        faults = cls()
        for text in texts:
            name, _, argument = text.partition("=")
            faults.switch(name, argument or ("yes" if name in FLAGS else ""))
        return faults

    def switch(self, name: str, argument: str) -> None:
        """On, or with an empty argument off. Raises `FaultError`."""
        if name not in NAMES:
            raise FaultError(f"no fault is called {name!r}; there are {', '.join((*NAMES, *AT_ONCE))}")
        if name in ("status", "start-status") and argument and not argument.isdigit():
            raise FaultError(f"fault {name} needs an HTTP status, like {name}=500")
        if name == "slow" and argument and not argument.replace(".", "", 1).isdigit():
            raise FaultError("fault slow needs seconds, like slow=2.5")
        self.on[name] = argument

    def get(self, name: str) -> str:
        """The argument; empty if it is off."""
        return self.on.get(name, "")
