"""Deliberate faults in classes of the services: a scenario that holds must fail with each of them."""

from __future__ import annotations

import inspect
import itertools
import linecache
import sys
import textwrap
from collections.abc import Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_numbers: Final = itertools.count()


def mutate(cls: type[T], method: str, old: str, new: str) -> type[T]:
    """A subclass of ``cls`` whose ``method`` has ``old`` replaced by ``new`` in its source.

    Both snippets are in the indentation of the method's ``def`` at column 0; several lines are fine. The subclass has
    the name of ``cls``, no slots of its own, and may be mutated again. ``super()`` in the method means what it meant.
    Raises AssertionError unless ``old`` occurs exactly once, AttributeError if there is no such method.
    """
    owner = next((c for c in cls.__mro__ if method in vars(c)), None)
    if owner is None:
        raise AttributeError(f"{cls.__qualname__} has no {method}")
    found: Any = vars(owner)[method]
    function: Any = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    source = textwrap.dedent(inspect.getsource(function))
    count = source.count(old)
    if count != 1 or old == new:
        raise AssertionError(f"{cls.__qualname__}.{method}: {count} times in it, wanted once and changed: {old!r}")
    made = _compile(function, source.replace(old, new), method, getattr(function, "mutant_of", owner))
    namespace = {"__slots__": (), "__module__": cls.__module__, "__qualname__": cls.__qualname__, method: made}
    metaclass: Any = type(cls)
    subclass: type[T] = metaclass(cls.__name__, (cls,), namespace)
    return subclass


def mutate_all(cls: type[T], edits: Iterable[tuple[str, str, str]]) -> type[T]:
    """:func:`mutate` once for each ``(method, old, new)``."""
    for method, old, new in edits:
        cls = mutate(cls, method, old, new)
    return cls


def _compile(function: Any, source: str, method: str, owner: type[Any]) -> Any:
    """Define the method anew, with the globals of its module and ``owner`` as the class that super() starts from."""
    file = f"<mutant {next(_numbers)} of {owner.__qualname__}.{method}>"
    text = "from __future__ import annotations\ndef make(__class__):\n" + textwrap.indent(source, "    ")
    text += f"\n    return {method}\n"
    linecache.cache[file] = (len(text), None, text.splitlines(True), file)
    code = compile(text, file, "exec", dont_inherit=True)
    scratch: dict[str, Any] = {}
    exec(code, vars(sys.modules[function.__module__]), scratch)
    made = scratch["make"](owner)
    inner: Any = made.fget if isinstance(made, property) else getattr(made, "__func__", made)
    inner.__qualname__ = f"{owner.__qualname__}.{method}"
    inner.mutant_of = owner
    return made
