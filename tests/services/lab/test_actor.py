"""Gates: when a sleeping loop may look again, and what it says that it waits for."""

from __future__ import annotations

from services.lab.actor import BLOCKED, READY, Actor, Relax, Yield
from services.lab.sharing import Location


def actor(name: str) -> Actor:
    async def nothing() -> None: ...

    coro = nothing()
    coro.close()
    return Actor(name, coro, False)


def test_relax_names_what_can_change() -> None:
    me = actor("poller")
    written: set[Location] = {("mem", 2), ("cell", "x")}
    gate = Relax(me, written, lambda loc: f"{loc[0]}.{loc[1]}")
    me.reads |= {("mem", 2), ("const", "size")}
    assert (gate.state(), gate.brief()) == (BLOCKED, "relax()")
    assert gate.describe() == "relax(), until a change of mem.2"
    written.clear()
    assert gate.describe() == "relax(), until a change of const.size, mem.2"
    me.dirty = True
    assert gate.state() == READY


class Turn:
    current: Actor | None = None


def test_yield_lets_another_make_a_step() -> None:
    me, other, turn = actor("me"), actor("other"), Turn()
    turn.current = me
    gate = Yield(turn, me)
    assert gate.state() == BLOCKED
    turn.current = other
    assert gate.state() == READY
    turn.current = me
    assert gate.state() == READY
    assert gate.brief() == "relax()"
    assert gate.describe() == "relax(), having read nothing"
