"""Columns for a terminal."""

from __future__ import annotations

from broker.cli.tables import table


def test_columns_are_aligned_and_numbers_stand_at_the_right() -> None:
    rows = [("celery", 12, True, None), ("x", 7000, False, "n1")]
    assert table(("NAME", "READY", "UP", "LEADER"), rows).splitlines() == [
        "NAME    READY  UP   LEADER",
        "celery     12  yes  -",
        "x        7000  no   n1",
    ]


def test_no_rows() -> None:
    assert table(("A", "B"), []) == "A  B"


def test_a_name_cannot_move_the_cursor() -> None:
    assert "\x1b" not in table(("NAME",), [("\x1b[2Jgone",)])
