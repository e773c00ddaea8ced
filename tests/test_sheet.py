"""Sheets as plain text."""

from __future__ import annotations

from converter.sheet import Sheet, Slots, Table, columns


def test_parts_follow_each_other_and_an_empty_line_parts_them() -> None:
    sheet = Sheet(
        ["title", Slots([("a", "1"), ("a", "2"), ("long", "3")]), "", Table([("x", "y")])]
    )
    assert sheet.text() == "title\n  a     1\n        2\n  long  3\n\nx  y"


def test_parts_without_rows_are_no_lines() -> None:
    assert Sheet(["title", Slots([]), Table([], ("name",), headed=True)]).text() == "title"


def test_a_head_is_shown_only_where_rows_cannot_be_read_without() -> None:
    table = Table([("a", "10"), ("b", "9")], ("name", "mean"), frozenset({1}), headed=True)
    assert Sheet([table]).text() == "name  mean\na       10\nb        9"
    bare = Table(table.rows, table.head, table.right)
    assert Sheet([bare]).text() == "a  10\nb   9"


def test_what_cannot_be_printed_is_escaped_in_every_part() -> None:
    evil = "\x1b[2J\u202e"
    text = Sheet([evil, Slots([(evil, evil)]), Table([(evil,)], (evil,), headed=True)]).text()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert text.count("\n") == 3


def test_columns_are_aligned_and_nothing_is_cut_off() -> None:
    rows = [("a", "long cell", "x"), ("longer", "b", ""), ("", "", "end")]
    assert columns(rows) == "a       long cell  x\nlonger  b\n                   end"


def test_a_cell_of_a_stranger_does_not_widen_every_row() -> None:
    rows = [("a", "b"), ("x" * 100_000, "c"), *[("d", "e")] * 1000]
    text = columns(rows)
    assert len(text) < 100_000 + 1002 * 210
    assert text.splitlines()[1] == "x" * 100_000 + "  c"
    assert text.splitlines()[0].split() == ["a", "b"]


def test_no_rows_are_no_text() -> None:
    assert columns([]) == ""
