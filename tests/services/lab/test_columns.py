"""Columns of a text ladder."""

from __future__ import annotations

from services.lab.columns import columns, wrap


def test_a_column_an_actor_each_as_wide_as_it_must_be() -> None:
    assert columns([("a", "one"), ("long name", "x"), ("a", "three")]) == [
        "a      long name",
        "-----  ---------",
        "one",
        "       x",
        "three",
        "-----  ---------",
    ]


def test_actors_that_do_nothing_have_a_column_too_and_the_order_is_theirs() -> None:
    assert columns([("b", "x")], actors=["a", "b", "c"])[0] == "a  b  c"


def test_long_rows_are_broken_at_the_width() -> None:
    lines = columns([("a", "one two three"), ("b", "x")], width=8)
    assert lines == ["a         b", "--------  -", "one two", "  three", "          x", "--------  -"]


def test_words_stay_whole() -> None:
    assert wrap("incomprehensible b", 5) == ["incomprehensible", "  b"]
    assert wrap("", 5) == [""]
