"""What a setting may be where that is a list of words: for errors that name the limit."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from msgspec import inspect

#: How msgspec begins its refusal of a word that is not in a list.
_REFUSAL: Final = re.compile(r"invalid (enum )?value ", re.IGNORECASE)
_PARTS: Final = re.compile(r"\.{3}|[^.\[\]]+")


def with_choices(reason: str, kind: Any, key: str) -> str:
    """``reason``, and the words that ``key`` of ``kind`` takes if that is what was refused.

    ``key`` is dotted, as msgspec has it: ``rules[0].time.distribution``, ``[...]`` for a key of a mapping.
    """
    if not _REFUSAL.match(reason):
        return reason
    types = [inspect.type_info(kind)]
    last = ""
    for last in _PARTS.findall(key):
        types = [inner for one in types for inner in _inside(one, last)]
    words = sorted({str(word) for one in types for word in _words(one)} - {""})
    return f"{reason}; there is {', '.join(words)}" if words else reason


def _inside(kind: inspect.Type, part: str) -> Iterator[inspect.Type]:
    """The types of one step of a key."""
    for one in _each(kind):
        if isinstance(one, inspect.StructType):
            yield from (field.type for field in one.fields if field.encode_name == part)
            if one.tag_field == part:
                yield inspect.LiteralType((one.tag,))
        elif isinstance(one, inspect.DictType):
            yield one.value_type
        elif isinstance(one, inspect.CollectionType):
            yield one.item_type
        elif isinstance(one, inspect.TupleType):
            yield from one.item_types


def _words(kind: inspect.Type) -> Iterator[Any]:
    for one in _each(kind):
        if isinstance(one, inspect.LiteralType):
            yield from one.values
        elif isinstance(one, inspect.EnumType):
            yield from (member.value for member in one.cls)


def _each(kind: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(kind, inspect.UnionType):
        for one in kind.types:
            yield from _each(one)
    elif isinstance(kind, inspect.Metadata):
        yield from _each(kind.type)
    else:
        yield kind
