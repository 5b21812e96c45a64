"""What crossed a wire is read back from its text byte for byte, however it came in pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.transcript import LINE_BYTES, Part, Writer, parse

AT_ONCE = b"?!~\x18"
BYTES = st.one_of(
    st.binary(max_size=40),
    st.text("ok \\\r\n\t?!x0a", max_size=40).map(str.encode),
    st.integers(LINE_BYTES - 2, 2 * LINE_BYTES + 2).map(lambda size: b"x" * size),
)
CROSSED = st.lists(
    st.tuples(st.sampled_from("<>"), BYTES, st.floats(0, 3, allow_nan=False)),
    max_size=30,
)


@given(CROSSED, st.sampled_from([b"", AT_ONCE]))
def test_everything_is_there_in_its_order_and_only_the_beginning_of_a_line_waits(crossed, at_once) -> None:
    writer = Writer(at_once)
    text, now_s, sent, received = "", 100.0, b"", b""
    for direction, data, pause_s in crossed:
        now_s += pause_s
        writer.add(direction, data, now_s)
        text += writer.take()
        if direction == ">":
            sent += data
        else:
            received += data
        (part,) = parse(text) or [Part("")]
        assert part.sent == sent, "what goes out never waits"
        assert received.startswith(part.came)
        waits = received[len(part.came) :]
        assert b"\n" not in waits
        assert len(waits) < LINE_BYTES
    writer.end()
    (part,) = parse(text + writer.take()) or [Part("")]
    assert (part.sent, part.came) == (sent, received)


@given(CROSSED, st.sampled_from([b"", AT_ONCE]))
def test_a_line_of_text_is_one_line_or_one_marked_piece_of_ascii(crossed, at_once) -> None:
    writer = Writer(at_once)
    writer.begin("now prn-1", 0.0)
    now_s = 0.0
    for direction, data, pause_s in crossed:
        now_s += pause_s
        writer.add(direction, data, now_s)
    writer.end()
    text = writer.take()
    assert all(" " <= character <= "~" or character == "\n" for character in text)
    assert all(len(line) <= 4 * LINE_BYTES + 3 and line == line.rstrip() for line in text.splitlines())
    for part in parse(text):
        assert part.crossed[0].data
        assert sum(one.after_s for one in part.crossed) <= now_s + 0.001
        for one in part.crossed:
            assert one.data.count(b"\n") == one.data.endswith(b"\n")
            if one.direction == ">" and any(byte in at_once for byte in one.data):
                assert len(one.data) == 1


@given(CROSSED)
def test_whole_lines_that_are_read_back_are_written_as_the_same_text(crossed) -> None:
    writer, again, now_s = Writer(), Writer(), 0.0
    for direction, data, pause_s in crossed:
        now_s += pause_s
        writer.add(direction, data + b"\n", now_s)
    text, now_s = writer.take(), 0.0
    for part in parse(text):
        for one in part.crossed:
            now_s += one.after_s
            again.add(one.direction, one.data, now_s)
    assert again.take() == text
