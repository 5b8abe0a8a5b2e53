"""Which fields a class declares to be set once: the ``Final`` annotations in its body."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final, get_origin

#: annotations are strings under ``from __future__ import annotations``
_FINAL: Final = re.compile(r"\s*(\w+\.)*Final\s*(\[|$)")


def _is_final(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return _FINAL.match(annotation) is not None
    return annotation is Final or get_origin(annotation) is Final


def slots_of(cls: type[Any]) -> dict[str, type[Any]]:
    """The fields of ``cls`` and the class whose slot each one is, the nearest first."""
    found: dict[str, type[Any]] = {}
    for base in cls.__mro__:
        slots = base.__dict__.get("__slots__", ())
        for field in (slots,) if isinstance(slots, str) else slots:
            if not field.startswith("__"):
                found.setdefault(field, base)
    return found


def final_fields(cls: type[Any]) -> frozenset[str]:
    """The fields of ``cls`` that its body, or else that of its nearest base, annotates ``Final``.

    ``self.x: Final = …`` in a method leaves no trace in the class, so it does not count.
    """
    annotations: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        annotations.update(inspect.get_annotations(base))
    return frozenset(field for field in slots_of(cls) if _is_final(annotations.get(field)))
