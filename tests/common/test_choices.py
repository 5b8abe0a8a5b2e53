"""Errors about a word that is not in a list name the list."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest

from common.choices import with_choices


class _Red(msgspec.Struct, tag_field="kind", tag="red"):
    shade: Literal["dark", "light"] = "dark"


class _Blue(msgspec.Struct, tag_field="kind", tag="blue"):
    depth: int = 0


class _All(msgspec.Struct):
    mode: Literal["on", "off", ""] = ""
    paints: list[Annotated[_Red | _Blue, msgspec.Meta(description="a paint")]] = []
    named: dict[str, _Red] = {}
    pair: tuple[int, Literal["x", "y"]] = (0, "x")
    count: int = 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"mode": "up"}', "; there is off, on"),
        ('{"paints": [{"kind": "red"}, {"kind": "green"}]}', "; there is blue, red"),
        ('{"paints": [{"kind": "red", "shade": "no"}]}', "; there is dark, light"),
        ('{"named": {"a": {"shade": "no"}}}', "; there is dark, light"),
        ('{"pair": [1, "z"]}', "; there is x, y"),
        ('{"count": "z"}', "got `str`"),
    ],
)
def test_of_what_msgspec_refuses(text: str, said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=_All)
    reason, _, at = str(caught.value).partition(" - at `$")
    assert with_choices(reason, _All, at.rstrip("`").lstrip(".")).endswith(said)


def test_a_key_that_is_not_there_adds_nothing() -> None:
    assert with_choices("Invalid enum value 'x'", _All, "nowhere.at.all") == "Invalid enum value 'x'"
    assert with_choices("Invalid enum value 'x'", _All, "count") == "Invalid enum value 'x'"
