"""What time it is, as far as a site may believe its clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.model.event import ClockTrust
from edge.timefloor import (
    AHEAD_MAX,
    ANSWER_MAX_S,
    BEHIND_MAX,
    Host,
    Known,
    Now,
    SignedTime,
    Source,
    answered,
    doubt,
    raised,
    read,
    recorded,
    vouched,
)

FLOOR = datetime(2026, 11, 21, 10, tzinfo=UTC)
LATER = FLOOR + timedelta(hours=1)
KNOWN = Known(FLOOR)
BOOT, OTHER_BOOT = "boot-1", "boot-2"


def host(wall: datetime = LATER, mono_s: float = 1000.0, boot_id: str = BOOT, synchronized: bool = True) -> Host:
    return Host(wall, mono_s, boot_id, synchronized)


def test_network_time_is_trusted_while_the_kernel_says_so() -> None:
    assert read(host(), KNOWN, Source.NTP) == Now(LATER, LATER, ClockTrust.TRUSTED)
    assert read(host(synchronized=False), KNOWN, Source.NTP) == Now(LATER, FLOOR, ClockTrust.UNKNOWN)


def test_a_host_that_the_site_believes_is_trusted_without_the_kernels_word() -> None:
    assert read(host(synchronized=False), KNOWN, Source.HOST).trusted


def test_a_site_that_believes_signed_times_only_trusts_no_host() -> None:
    assert read(host(), KNOWN, Source.SIGNED).trust is ClockTrust.UNKNOWN


def test_a_clock_that_starts_in_1970_is_at_the_floor() -> None:
    for source in Source:
        now = read(host(wall=datetime(1970, 1, 1, tzinfo=UTC)), KNOWN, source)
        assert now == Now(FLOOR, FLOOR, ClockTrust.FLOOR)


def test_a_clock_that_is_a_little_behind_the_floor_is_a_correction() -> None:
    now = read(host(wall=FLOOR - BEHIND_MAX), KNOWN, Source.NTP)
    assert now == Now(FLOOR, FLOOR, ClockTrust.TRUSTED)
    assert not read(host(wall=FLOOR - BEHIND_MAX - timedelta(seconds=1)), KNOWN, Source.NTP).trusted


def test_network_time_of_2099_is_not_believed() -> None:
    assert read(host(wall=FLOOR + AHEAD_MAX), KNOWN, Source.NTP).trusted
    for source in Source:
        assert read(host(wall=datetime(2099, 1, 1, tzinfo=UTC)), KNOWN, source).trust is ClockTrust.UNKNOWN


def test_a_moment_has_passed_ahead_or_nobody_knows() -> None:
    trusted = Now(LATER, FLOOR, ClockTrust.TRUSTED)
    assert trusted.passed(LATER) is True
    assert trusted.passed(LATER + timedelta(seconds=1)) is False
    for trust in (ClockTrust.FLOOR, ClockTrust.UNKNOWN):
        unsure = Now(LATER, FLOOR, trust)
        assert unsure.passed(FLOOR) is True
        assert unsure.passed(FLOOR + timedelta(seconds=1)) is None


def test_a_signed_time_counts_from_the_making_of_its_nonce_whatever_the_host_says() -> None:
    answer = SignedTime(LATER, 900.0, 1000.0, BOOT)
    known = answered(KNOWN, answer, host(wall=datetime(1970, 1, 1, tzinfo=UTC)), repairs=False)
    assert known == Known(LATER, answer)
    now = read(host(wall=datetime(2099, 1, 1, tzinfo=UTC), mono_s=1060.0), known, Source.NTP)
    assert now == Now(LATER + timedelta(seconds=160), LATER + timedelta(seconds=60), ClockTrust.TRUSTED)


def test_a_signed_time_vouches_for_its_own_boot_only() -> None:
    known = answered(KNOWN, SignedTime(LATER, 900.0, 1000.0, BOOT), host(), repairs=False)
    assert not read(host(boot_id=OTHER_BOOT, synchronized=False), known, Source.NTP).trusted


def test_an_answer_that_is_too_late_or_of_another_boot_raises_only_the_floor() -> None:
    late = answered(KNOWN, SignedTime(LATER, 0.0, ANSWER_MAX_S + 1, BOOT), host(mono_s=ANSWER_MAX_S + 1), repairs=False)
    other = answered(KNOWN, SignedTime(LATER, 900.0, 1000.0, OTHER_BOOT), host(), repairs=False)
    assert late == other == Known(LATER)


def test_a_signed_time_behind_the_floor_changes_nothing() -> None:
    old = SignedTime(FLOOR - timedelta(days=1), 999.0, 1000.0, BOOT)
    assert answered(KNOWN, old, host(), repairs=False) == KNOWN


def test_an_operator_beside_it_lowers_a_floor_that_a_forged_clock_has_raised() -> None:
    forged = Known(datetime(2028, 1, 1, tzinfo=UTC))
    answer = SignedTime(LATER, 999.0, 1000.0, BOOT)
    assert answered(forged, answer, host(), repairs=False) == forged
    assert answered(forged, answer, host(), repairs=True) == Known(LATER, answer)
    late = SignedTime(LATER, 999.0, 1000.0, OTHER_BOOT)
    assert answered(Known(forged.floor, answer), late, host(), repairs=True) == Known(LATER)


@pytest.mark.parametrize(("now", "floor"), [(vouched(LATER), LATER), (Now(LATER, FLOOR, ClockTrust.UNKNOWN), FLOOR)])
def test_only_a_trusted_clock_raises_the_floor(now: Now, floor: datetime) -> None:
    assert raised(KNOWN, now) == Known(floor)


def test_a_late_answer_raises_the_floor_by_what_is_certain_only() -> None:
    """An answer that took ten hours is ten hours early or on time: nobody knows, so the floor does not follow."""
    answer = SignedTime(LATER, 0.0, 36_000.0, BOOT)
    known = answered(KNOWN, answer, host(mono_s=36_000.0), repairs=False)
    now = read(host(mono_s=36_060.0, synchronized=False), known, Source.NTP)
    assert (now.wall, now.floor) == (LATER + timedelta(seconds=36_060), LATER + timedelta(seconds=60))
    assert raised(known, now).floor == LATER + timedelta(seconds=60)
    assert not read(host(wall=LATER, boot_id=OTHER_BOOT), known, Source.NTP).wall > LATER


def test_a_host_that_is_believed_tells_the_time_within_what_a_signed_time_leaves_open() -> None:
    known = answered(KNOWN, SignedTime(LATER, 0.0, 600.0, BOOT), host(mono_s=600.0), repairs=False)
    within, beyond = LATER + timedelta(minutes=5), LATER + timedelta(minutes=11)
    assert read(host(wall=within, mono_s=600.0), known, Source.NTP).wall == within
    for wall, synchronized in ((within, False), (beyond, True), (LATER - timedelta(minutes=1), True)):
        now = read(host(wall=wall, mono_s=600.0, synchronized=synchronized), known, Source.NTP)
        assert now.wall == LATER + timedelta(minutes=10)


def test_what_was_stamped_before_a_repair_was_known_does_not_undo_it() -> None:
    forged = datetime(2028, 1, 1, tzinfo=UTC)
    repaired = answered(Known(forged), SignedTime(LATER, 999.0, 1000.0, BOOT), host(), repairs=True)
    assert recorded(repaired, host(wall=forged, mono_s=1001.0)).floor == LATER + timedelta(seconds=1)
    assert recorded(repaired, host(wall=forged, boot_id=OTHER_BOOT)).floor == forged


@pytest.mark.parametrize(
    ("at", "source", "words"),
    [
        (host(), Source.NTP, ""),
        (host(synchronized=False), Source.NTP, "the kernel does not say"),
        (host(), Source.SIGNED, "believes signed times only"),
        (host(wall=datetime(1970, 1, 1, tzinfo=UTC)), Source.HOST, "says 1970-01-01 00:00 UTC, and 2026-11-21 10:00"),
        (host(wall=datetime(2099, 1, 1, tzinfo=UTC)), Source.NTP, "more than 1000 days ahead"),
    ],
)
def test_why_a_clock_is_not_trusted_is_said(at: Host, source: Source, words: str) -> None:
    said = doubt(at, KNOWN, source)
    assert words in said
    assert bool(said) is bool(words)


YEAR_1970, YEAR_2200 = (datetime(year, 1, 1) for year in (1970, 2200))  # noqa: DTZ001 - hypothesis adds the zone
moments = st.datetimes(YEAR_1970, YEAR_2200, timezones=st.just(UTC))
hosts = st.builds(Host, moments, st.floats(0, 1e7), st.sampled_from([BOOT, OTHER_BOOT]), st.booleans())
answers = st.builds(SignedTime, moments, st.floats(0, 1e7), st.floats(0, 1e7), st.sampled_from([BOOT, OTHER_BOOT]))


@given(moments, st.lists(st.tuples(hosts, st.one_of(st.none(), answers))), st.sampled_from(list(Source)))
def test_the_floor_never_falls_without_a_repair_and_no_time_is_below_it(
    floor: datetime, story: list[tuple[Host, SignedTime | None]], source: Source
) -> None:
    known = Known(floor)
    for at, answer in story:
        before = known.floor
        if answer is not None:
            answer = replace(answer, arrived_mono_s=max(at.mono_s, answer.nonce_mono_s))
            known = answered(known, answer, replace(at, mono_s=answer.arrived_mono_s), repairs=False)
        now = read(at, known, source)
        folded = recorded(known, replace(at, wall=now.wall)) if now.trusted else known
        known = raised(known, now)
        assert folded == known, "the daemon and the journal know the same"
        assert known.floor >= before
        assert now.wall >= now.floor >= before
