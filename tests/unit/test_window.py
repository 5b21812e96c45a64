"""From where the outbox sends, and when again."""

from __future__ import annotations

from edge.uplink.window import ASKED_S, RESEND_MAX_S, RESEND_S, WINDOW, Window


def sent(window: Window, *last: int, now: float = 0.0) -> None:
    for seq in last:
        assert window.may_send(1000, now)
        window.sent(seq, now)


def test_a_new_connection_begins_with_what_the_collector_has_already() -> None:
    assert Window(0).next_seq == 1
    window = Window(7)
    assert window.next_seq == 7
    assert not Window(0).may_send(0, 0.0), "an empty journal has nothing to say"
    sent(window, 10, 20)
    window.connected()
    assert (window.next_seq, window.in_flight, window.due_at) == (7, 0, None)


def test_not_more_than_a_window_is_on_its_way() -> None:
    window = Window(0)
    sent(window, *range(10, 10 * WINDOW + 1, 10))
    assert not window.may_send(1000, 1.0)
    window.acknowledged(20)
    assert window.in_flight == WINDOW - 2
    assert window.may_send(1000, 1.0)
    assert window.next_seq == 10 * WINDOW + 1


def test_what_is_not_acknowledged_is_sent_again_from_the_mark_on() -> None:
    window = Window(0)
    sent(window, 10, now=5.0)
    sent(window, 20, now=6.0)
    window.acknowledged(5)
    assert window.due_at == 5.0 + RESEND_S
    assert not window.may_send(20, 5.0 + RESEND_S - 1)
    assert window.may_send(20, 5.0 + RESEND_S)
    assert (window.next_seq, window.in_flight) == (6, 0)


def test_the_time_that_a_slow_line_takes_is_no_silence_of_the_collector() -> None:
    window = Window(0)
    sent(window, 10, now=5.0)
    window.taken(5.0 + 2 * RESEND_S)
    assert not window.may_send(10, 5.0 + 3 * RESEND_S - 1)
    assert window.may_send(10, 5.0 + 3 * RESEND_S)
    window.acknowledged(10)
    window.taken(1000.0)
    assert window.due_at is None, "it was acknowledged before the broker said that it has taken it"


def test_whoever_asks_is_answered_once_a_while() -> None:
    window = Window(3)
    sent(window, 10, 20)
    window.asked(5, 100.0)
    assert (window.acked, window.next_seq, window.in_flight) == (5, 6, 0)
    sent(window, 10, now=100.1)
    window.asked(5, 100.0 + ASKED_S / 2)
    assert (window.next_seq, window.in_flight) == (11, 1)
    window.asked(2, 100.0 + ASKED_S)
    assert (window.acked, window.next_seq) == (2, 3)


def test_what_is_asked_too_soon_is_answered_at_its_time() -> None:
    window = Window(0)
    sent(window, 10, 20)
    window.asked(0, 100.0)
    sent(window, 10, 20, 30, 40, now=100.1)
    window.asked(10, 100.2)  # 20 was lost again, and nothing is sent that would make the collector ask once more
    sent(window, 50, now=100.3)
    assert window.due_at == 100.0 + ASKED_S
    assert not window.may_send(1000, 100.0 + ASKED_S / 2)
    assert window.may_send(1000, 100.0 + ASKED_S)
    assert (window.next_seq, window.in_flight) == (11, 0)
    sent(window, 20, 30, 40, 50, now=100.0 + ASKED_S)
    assert window.due_at == 100.0 + ASKED_S + RESEND_S
    window.asked(10, 100.0 + ASKED_S * 1.5)
    assert window.due_at == 100.0 + ASKED_S * 2, "it counts from when it was answered last"


def test_what_was_asked_too_soon_and_has_come_is_not_sent_again() -> None:
    window = Window(0)
    sent(window, 10, 20)
    window.asked(0, 100.0)
    sent(window, 10, 20, 30, now=100.1)
    window.asked(0, 100.2)  # the answer to what was sent before
    window.acknowledged(20)
    assert window.due_at == 100.1 + RESEND_S
    assert window.may_send(1000, 100.0 + ASKED_S)
    assert (window.next_seq, window.in_flight) == (31, 1)


def test_what_is_asked_too_soon_is_sent_although_nothing_is_under_way() -> None:
    """The collector asks twice within a second: it was put back to a backup after it had acknowledged all."""
    window = Window(0)
    window.asked(0, 100.0)
    sent(window, 10, now=100.1)
    window.acknowledged(10)
    window.asked(5, 100.5)
    assert window.due_at == 100.0 + ASKED_S
    assert not window.may_send(10, 100.0 + ASKED_S / 2)
    assert window.may_send(10, 100.0 + ASKED_S)
    assert window.next_seq == 6


def test_a_new_connection_forgets_what_was_asked() -> None:
    window = Window(0)
    window.asked(0, 100.0)
    sent(window, 10, now=100.1)
    window.asked(0, 100.2)
    window.connected()
    sent(window, 10, now=100.3)
    assert window.due_at == 100.3 + RESEND_S


def test_an_acknowledgement_can_be_ahead_of_what_is_sent_again() -> None:
    window = Window(0)
    sent(window, 10, 20)
    window.connected()
    window.acknowledged(20)
    assert (window.next_seq, window.in_flight) == (21, 0)


def test_while_nobody_answers_one_at_a_time_and_ever_more_rarely() -> None:
    window = Window(0)
    sent(window, 10, 20, 30)
    now_s, waits_s = RESEND_S, []
    for _ in range(12):
        sent(window, 10, now=now_s)
        assert not window.may_send(1000, now_s)
        assert window.due_at is not None
        waits_s.append(window.due_at - now_s)
        now_s = window.due_at
    assert waits_s[:3] == [2 * RESEND_S, 4 * RESEND_S, 8 * RESEND_S]
    assert waits_s[-1] == RESEND_MAX_S
    window.connected()
    sent(window, 10, now=now_s)
    assert not window.may_send(1000, now_s), "a new connection is no answer"
    window.acknowledged(10)
    sent(window, 20, 30, 40, 50, now=now_s)
    assert window.due_at == now_s + RESEND_S
