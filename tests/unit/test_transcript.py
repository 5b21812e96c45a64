"""What crossed a wire, as text: how each byte is written, when a line is shown, and what is read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.transcript import LINE_BYTES, Crossed, Part, Writer, parse


def written(*crossed: tuple[str, bytes, float], at_once: bytes = b"") -> str:
    """The text of one connection, up to its end."""
    writer = Writer(at_once)
    for direction, data, at_s in crossed:
        writer.add(direction, data, at_s)
    writer.end()
    return writer.take()


def test_one_line_for_each_line_with_the_seconds_between() -> None:
    text = written((">", b"N1 G28*18\nN2 G90*18\n", 5.0), ("<", b"ok\n", 5.0124), ("<", b"ok\n", 7.5))
    assert text == "> N1 G28*18\n> N2 G90*18\n~ 0.012\n< ok\n~ 2.488\n< ok\n"


def test_the_sum_of_the_seconds_is_right_however_short_they_are() -> None:
    text = written(*((">", b"a\n", count * 0.0004) for count in range(10_001)))
    assert round(sum(crossed.after_s for crossed in parse(text)[0].crossed), 6) == 4.0


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\n", ""),
        (b" T:20.0 /0.0\n", "  T:20.0 /0.0"),
        (b"ok\r\n", " ok\\r"),
        (b"a\tb \n", " a\\tb\\x20"),
        (b" \n", " \\x20"),
        (b"C:\\n\n", " C:\\\\n"),
        (b"\\\n", " \\\\"),
        (b"\\", " \\\\\\"),
        (b"\x00\x7f\xff\n", " \\x00\\x7f\\xff"),
        ("é\n".encode(), " \\xc3\\xa9"),
        (b"~!?\n", " ~!?"),
    ],
)
@pytest.mark.parametrize("direction", [">", "<"])
def test_every_byte_is_written_in_one_way_only(direction: str, data: bytes, shown: str) -> None:
    text = written((direction, data, 0.0))
    assert text == f"{direction}{shown}\n"
    assert parse(text) == [Part("", [Crossed(direction, data)])]


def test_what_comes_in_is_joined_to_lines_and_shown_when_their_end_is_there() -> None:
    pieces = [("<", b"o", 1.0), (">", b"M105\n", 2.0), ("<", b"k\no", 3.0), ("<", b"k", 4.0), ("<", b"\n", 5.0)]
    assert written(*pieces) == "> M105\n~ 1.0\n< ok\n~ 2.0\n< ok\n"


def test_what_goes_out_is_shown_as_it_went_and_waits_for_nothing() -> None:
    pieces = [(">", b"?", 1.0), (">", b"G1 X1\n", 1.0), (">", b"\x18", 1.5), (">", b"G1", 2.0), (">", b" X2\n", 2.0)]
    assert written(*pieces) == "> ?\\\n> G1 X1\n~ 0.5\n> \\x18\\\n~ 0.5\n> G1\\\n>  X2\n"


def test_what_acts_at_once_is_shown_by_itself_wherever_it_stands() -> None:
    text = written((">", b"?G1 X1\nG1 X2\n?", 0.0), (">", b"!", 1.0), ("<", b"ok?\n", 1.0), at_once=b"?!~\x18")
    assert text == "> ?\\\n> G1 X1\n> G1 X2\n> ?\\\n~ 1.0\n> !\\\n< ok?\n"
    assert written((">", b"M117 Ready?\n", 0.0)) == "> M117 Ready?\n", "which bytes do so, only the driver knows"


@pytest.mark.parametrize("direction", [">", "<"])
def test_what_never_ends_is_written_in_pieces_that_are_marked(direction: str) -> None:
    whole = "x" * LINE_BYTES
    assert written((direction, b"x" * (2 * LINE_BYTES + 1), 0.0)).splitlines() == [
        f"{direction} {whole}\\",
        f"{direction} {whole}\\",
        f"{direction} x\\",
    ]
    assert written((direction, b"x" * LINE_BYTES + b"y\n", 0.0)) == f"{direction} {whole}\\\n{direction} y\n"


def test_no_more_than_one_piece_is_kept_back() -> None:
    writer = Writer()
    for _ in range(LINE_BYTES - 1):
        writer.add("<", b"\xff", 0.0)
    assert writer.take() == ""
    writer.add("<", b"\xff", 0.0)
    assert writer.take() == "< " + "\\xff" * LINE_BYTES + "\\\n"


def test_what_waits_for_its_end_too_long_is_written_as_it_is() -> None:
    writer = Writer()
    writer.add("<", b"Pass", 1.0)
    writer.end(before_s=1.0)
    assert writer.take() == ""
    writer.add(">", b"M105\n", 3.0)
    writer.end(before_s=1.1)
    writer.end()
    assert writer.take() == "> M105\n< Pass\\\n", "its seconds are over: time does not go back"


def test_a_connection_has_its_heading_once_something_crosses() -> None:
    writer = Writer()
    writer.begin("nobody was there", 1.0)
    writer.begin("prn-1 /dev/ttyü", 5.0)
    assert writer.take() == ""
    writer.add(">", b"\n", 5.25)
    writer.add("<", b"sta", 5.25)
    writer.begin("again", 9.0)
    writer.add("<", b"start\n", 9.0)
    writer.remark("bytes are\nmissing here")
    text = writer.take()
    assert text == (
        "== prn-1 /dev/tty\\xc3\\xbc\n~ 0.25\n>\n< sta\\\n== again\n< start\n# bytes are\\x0amissing here\n"
    )
    first, second = parse(text)
    assert first == Part("prn-1 /dev/tty\\xc3\\xbc", [Crossed(">", b"\n", 0.25), Crossed("<", b"sta")])
    assert second == Part("again", [Crossed("<", b"start\n")])
    assert (first.sent, first.came) == (b"\n", b"sta")


def test_seconds_and_remarks_between_two_lines_add_up() -> None:
    (part,) = parse("== a part\n# by hand\n> M105\n~ 1.5\n\n~ 2\n< ok\n")
    assert part.crossed == [Crossed(">", b"M105\n"), Crossed("<", b"ok\n", 3.5)]
    assert parse("") == parse("\n# nothing\n") == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("ok", "a line begins with"),
        ("<35 Cap:", "a line begins with"),
        (" > ok", "a line begins with"),
        ("~ soon", "write the seconds as 2.5"),
        ("~ -1", "write the seconds as 2.5"),
        ("~", "write the seconds as 2.5"),
        ("> \\q", r"\\xHH"),
        ("> \\x4", r"\\xHH"),
        ("> \\xAB", r"\\xHH"),
        ("> grüß", r"\\xHH"),
        ("< ok\r", r"\\xHH"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(line: str, why: str) -> None:
    with pytest.raises(ValueError, match=rf"^line 2 of the transcript, .*: .*{why}"):
        parse(f"> M105\n{line}\n")


def test_the_recordings_of_the_project_have_this_form_as_far_as_they_are_exact() -> None:
    recording = (Path(__file__).parent.parent / "transcripts" / "marlin-2.1.2.1.txt").read_text()
    exact = "\n".join(line for line in recording.splitlines() if not line.startswith("<35 "))
    parts = {part.name: part for part in parse(exact)}
    assert parts["lines without a number"].sent == b"M105*33\nm105\n\n; a comment\n"
    assert [crossed.after_s for crossed in parts["temperatures"].crossed] == [0.0, 0.0, 0.0, 0.0, 1.5]
