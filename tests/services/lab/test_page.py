"""The HTML page."""

from __future__ import annotations

from html.parser import HTMLParser

from services.lab.explore import replay
from services.lab.page import page
from tests.services.lab.toys import double_free

SCHEDULE = ("cpu0", "cpu1", "cpu1", "cpu1", "cpu1")


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        assert not any(name in ("src", "href") for name, _ in attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_well_formed_and_self_contained() -> None:
    text = page(replay(double_free(False), SCHEDULE, 100), "double <free>")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.seen.count("circle") == 8
    assert "double &lt;free&gt;" in text
    assert "final: freed 2 times" in text


def test_no_failure() -> None:
    assert "no failure" in page(replay(double_free(True), (), 100), "x")
