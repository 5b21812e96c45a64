"""What time it is, as far as a site may believe its clock. PURE.

A Raspberry Pi has no clock that survives a power cut, and network time can be forged. Rules:

    1. The *floor* is a moment that has certainly passed: the latest of the trust root's date, of signed times, and of
       what was recorded while the clock was trusted. It only rises; an order's own dates never raise it. What a forged
       clock has raised too far is repaired by a signed time that an operator has signed too.
    2. The clock is *trusted* while somebody vouches for it: a signed time since this boot of the host, or the host's
       own clock as far as the site's configuration believes it (`Source`). What the kernel has said of it in this boot
       stays true while nobody sets the clock (`goes_on`): a site is not to stop for want of a network. A host's clock
       behind the floor is wrong, and one that is ahead of it by more than `AHEAD_MAX` is not believed.
    3. A moment has passed for sure if the floor or a trusted clock has passed it. It lies ahead for sure only by a
       trusted clock. Everything else is unknown, and waits: nothing expires and nothing comes to life by a guess.
    4. A signed time answers one nonce of this site. It was signed between the making of the nonce and its arrival. So
       now is at most `at` plus all the time since the nonce was made, which counts, so that nothing runs too late; and
       at least `at` plus the time since the arrival, which is all that raises the floor. A host's clock that the site
       believes counts in between.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from edge.model.event import ClockTrust

AHEAD_MAX = timedelta(days=1000)
"""How far a host's clock may be ahead of the floor: our choice; a site is switched off for less."""

BEHIND_MAX = timedelta(minutes=5)
"""How far a host's clock may be behind the floor: corrections of network time go back by seconds."""

ANSWER_MAX_S = 24 * 3600.0
"""How old a nonce may be for its answer to vouch for the clock, and not only raise the floor: our choice. It bounds how
wrong the time is: an answer may come by a person with a USB stick."""


SET_MIN = timedelta(seconds=2)
"""A host's clock that moves by this against its clock since boot has been set: more than a leap second, and more than
passes between reading the one and the other."""

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
"""No site is older than this program."""


class Source(enum.StrEnum):
    """Whose word a site takes for the time, beside signed times."""

    NTP = "ntp"  # the kernel says, or has said in this boot, that something keeps its clock synchronized
    HOST = "host"  # the host's clock as it is: it has a battery, and somebody looks after it
    SIGNED = "signed"  # nobody's but signed times


@dataclass(frozen=True, slots=True)
class Host:
    """The host's clocks at one moment. `synchronized`: the kernel vouches for `wall`, or has, and it goes on since."""

    wall: datetime
    mono_s: float
    boot_id: str
    synchronized: bool


def booted_at(wall: datetime, mono_s: float) -> datetime:
    """When the host was booted, by a clock that says `wall` so many seconds later."""
    return wall - timedelta(seconds=mono_s)


def goes_on(vouched: datetime, wall: datetime, mono_s: float) -> bool:
    """Whether a clock that once said that the host was booted at `vouched` has not been set since.

    Both clocks of a host go by one oscillator, at the rate that network time has found for it (clock_gettime(2)). So
    their difference says nothing of how far both have drifted, and it changes only if somebody sets one.
    """
    return abs(booted_at(wall, mono_s) - vouched) < SET_MIN


@dataclass(frozen=True, slots=True)
class SignedTime:
    """A signed time that was accepted, and the host's monotonic clock when its nonce was made and when it came."""

    at: datetime
    nonce_mono_s: float
    arrived_mono_s: float
    boot_id: str

    def earliest(self, mono_s: float) -> datetime:
        """The time that it is at least, later in the same boot."""
        return self.at + timedelta(seconds=mono_s - self.arrived_mono_s)

    def latest(self, mono_s: float) -> datetime:
        """The time that it is at most, later in the same boot."""
        return self.at + timedelta(seconds=mono_s - self.nonce_mono_s)


@dataclass(frozen=True, slots=True)
class Known:
    """What a site knows of the time: `floor`, and the last signed time that vouches for the clock."""

    floor: datetime
    signed: SignedTime | None = None


@dataclass(frozen=True, slots=True)
class Now:
    """The time to judge by. `wall` is the best that is known; `trust` says what that is worth. `floor` has passed."""

    wall: datetime
    floor: datetime
    trust: ClockTrust

    @property
    def trusted(self) -> bool:
        """Whether `wall` may be acted upon."""
        return self.trust is ClockTrust.TRUSTED

    def passed(self, moment: datetime) -> bool | None:
        """Whether `moment` has passed; None if nobody knows."""
        if self.floor >= moment:
            return True
        return self.wall >= moment if self.trusted else None


def vouched(wall: datetime) -> Now:
    """A time that the caller vouches for."""
    return Now(wall, wall, ClockTrust.TRUSTED)


def read(host: Host, known: Known, source: Source) -> Now:
    """What time it is."""
    if known.signed is not None and known.signed.boot_id == host.boot_id:
        earliest, latest = known.signed.earliest(host.mono_s), known.signed.latest(host.mono_s)
        wall = host.wall if _believed(host, source) and earliest <= host.wall <= latest else latest
        floor = max(known.floor, earliest)
        return Now(max(wall, floor), floor, ClockTrust.TRUSTED)
    if host.wall < known.floor - BEHIND_MAX:
        return Now(known.floor, known.floor, ClockTrust.FLOOR)
    if _believed(host, source) and host.wall <= known.floor + AHEAD_MAX:
        wall = max(host.wall, known.floor)
        return Now(wall, wall, ClockTrust.TRUSTED)
    return Now(max(host.wall, known.floor), known.floor, ClockTrust.UNKNOWN)


def _believed(host: Host, source: Source) -> bool:
    return source is Source.HOST or (source is Source.NTP and host.synchronized)


def doubt(host: Host, known: Known, source: Source) -> str:
    """Why the clock is not trusted, in words; empty if it is."""
    now = read(host, known, source)
    if now.trusted:
        return ""
    if now.trust is ClockTrust.FLOOR:
        return f"the host's clock says {_text(host.wall)}, and {_text(known.floor)} has certainly passed"
    if not _believed(host, source):
        if source is Source.SIGNED:
            return "this site believes signed times only, and none has come since the host was booted"
        return (
            "the kernel does not say that its clock is kept synchronized, nor has it since the host was booted or its"
            " clock was set, and no signed time has come since the boot"
        )
    days = f"more than {AHEAD_MAX.days} days ahead of what is known ({_text(known.floor)})"
    return f"the host's clock says {_text(host.wall)}: {days}"


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def raised(known: Known, now: Now) -> Known:
    """What is known after something was recorded at `now`: only a trusted clock raises the floor."""
    return Known(max(known.floor, now.floor), known.signed) if now.trusted else known


def recorded(known: Known, host: Host) -> Known:
    """What is known after an event of a trusted clock: `host` is as it was when the event was stamped.

    A signed time of the same boot limits it: what was stamped before that was known has no say any more.
    """
    certain = host.wall
    if known.signed is not None and known.signed.boot_id == host.boot_id:
        certain = min(certain, known.signed.earliest(host.mono_s))
    return Known(max(known.floor, certain), known.signed)


def answered(known: Known, answer: SignedTime, host: Host, repairs: bool) -> Known:
    """What is known after the signed time `answer`, which came at `host`.

    `repairs`: an operator has signed it too, so that it may also lower the floor. An answer to a nonce of another boot,
    or to one that is too old, says only what has passed.
    """
    floor = answer.at if repairs else max(known.floor, answer.at)
    in_time = answer.boot_id == host.boot_id and host.mono_s - answer.nonce_mono_s <= ANSWER_MAX_S
    if not in_time:
        return Known(floor, None if repairs else known.signed)
    # One that is behind what is certain does not tell what time it is.
    return Known(floor, answer if answer.latest(host.mono_s) >= floor else known.signed)
