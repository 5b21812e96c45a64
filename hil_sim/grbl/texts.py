"""What grblHAL says, word for word (core 20260817: report.c, messages.c). Lines end in carriage return and line feed.

The `Bf:` and `OPT:` figures, and the alarm and unlock sequence, are those seen on a real build of that core; the
settings of ``$$`` are this simulator's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

VERSION = "1.1f"
BUILD = 20260817
PLANNER_BLOCKS = 100
RX_BYTES = 1024

# grbl 1.1h as of 20190830: grbl/grbl.h, grbl/serial.h, grbl/planner.h, grbl/protocol.h, grbl/report.c.
PLAIN_VERSION = "1.1h"
PLAIN_BUILD = 20190830
PLAIN_BLOCKS = 15
PLAIN_RX_BYTES = 128
PLAIN_LINE_BYTES = 79

END = "\r\n"
BANNER = f"{END}GrblHAL {VERSION} ['$' or '$HELP' for help]{END}"
PLAIN_BANNER = f"{END}Grbl {PLAIN_VERSION} ['$' for help]{END}"
OK = f"ok{END}"

LOCKED = "'$H'|'$X' to unlock"
UNLOCKED = "Caution: Unlocked"
CRITICAL = "Reset to continue"
PROGRAM_END = "Pgm End"

HELP = f"[HLP:$$ $# $G $I $N $x=val $Nx=line $J=line $SLP $C $X $H $B ~ ! ? ctrl-x]{END}"


def error(code: int) -> str:
    """The one answer to a line that was not carried out."""
    return f"error:{code}{END}"


def alarm(code: int) -> str:
    """The machine has been stopped."""
    return f"ALARM:{code}{END}"


def message(text: str) -> str:
    """Something for people."""
    return f"[MSG:{text}]{END}"


def identity(info: str, *, plain: bool) -> str:
    """The answer to `$I`, without its `ok`. `info`: the text that a person stored with `$I=`."""
    if plain:
        lines: tuple[str, ...] = (f"VER:{PLAIN_VERSION}.{PLAIN_BUILD}:{info}", f"OPT:V,{PLAIN_BLOCKS},{PLAIN_RX_BYTES}")
        return "".join(f"[{line}]{END}" for line in lines)
    lines = (
        f"VER:{VERSION}.{BUILD}:{info}",
        f"OPT:VNMSL,{PLANNER_BLOCKS},{RX_BYTES},3,0",
        "AXS:3:XYZ",
        "NEWOPT:ENUMS,RT+,HOME",
        "FIRMWARE:grblHAL",
        "BOARD:Simulator",
    )
    return "".join(f"[{line}]{END}" for line in lines)


def offsets(zeros_mm: Mapping[str, Iterable[float]], offset_mm: Iterable[float]) -> str:
    """The answer to `$#`, without its `ok`."""
    nowhere = "0.000,0.000,0.000"
    lines = [f"{name}:{numbers(zero)}" for name, zero in zeros_mm.items()]
    lines += [f"G28:{nowhere}", f"G30:{nowhere}", f"G92:{numbers(-mm for mm in offset_mm)}"]
    lines += ["TLO:0.000,0.000,0.000", f"PRB:{nowhere}:0"]
    return "".join(f"[{line}]{END}" for line in lines)


def numbers(values: Iterable[float]) -> str:
    """Axis values as reports have them."""
    return ",".join(f"{value + 0.0:.3f}" for value in values)
