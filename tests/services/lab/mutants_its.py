"""One fault each in the ITS: queue, commands, tables, delivery, restore. For the scenarios on the ITS to find.

Caught or not, each is a row of docs/races/mutants.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from services.gic_its import core, saving, snapshot
from services.gic_its.commands import Commands
from services.gic_its.delivery import Delivery
from services.gic_its.held_tables import HeldTables
from services.gic_its.saving import _Restore
from services.gic_its.uaccess import Uaccess
from services.lab.scenario import Build, Settings, find
from services.lab.scenarios import cwriter_two_writers as writers
from services.lab.scenarios.its_rig import Bench, OneByOne, Rig
from tests.services.lab.mutation import mutate_all

#: Where the rigs look for each class.
PLACES: Final[dict[type[Any], tuple[object, str]]] = {
    OneByOne: (Bench, "queue_class"),
    Bench: (Rig, "its_class"),
    Commands: (core, "Commands"),
    Delivery: (core, "Delivery"),
    HeldTables: (core, "HeldTables"),
    Uaccess: (snapshot, "Uaccess"),
    _Restore: (saving, "_Restore"),
}

_WRITERS: Final = "cwriter-two-writers"
_BOUNDS: Final = "cwriter-bounds"
_MSIS: Final = "msi-during-batch"
_RESTORE: Final = "restore-order"
#: cwriter-two-writers with three writers
_THREE: Final = "three writers"


@dataclass(frozen=True)
class Mutant:
    """``edits`` of ``cls``: (method, old, new). ``scenario``'s shipped variant is run with it."""

    name: str
    cls: type[Any]
    edits: tuple[tuple[str, str, str], ...]
    scenario: str
    #: where the scenario's own bound is too small
    settings: Settings | None = None

    def make(self) -> type[Any]:
        return mutate_all(self.cls, self.edits)

    def search(self) -> tuple[Build, Settings]:
        if self.scenario == _THREE:
            return writers.build(writers.Writers, (writers.THREE,)), writers.BUDGET
        variant = find(self.scenario).variant("shipped")
        return variant.build, self.settings or variant.settings


MUTANTS: Final = (
    # --- the queue
    Mutant(
        "whether there is a runner is asked without the lock",
        OneByOne,
        (
            (
                "post",
                "        start = not complete and not self._state.running\n        if start:\n"
                "            self._state.running = True\n    if start:\n",
                "    start = not complete and not self._state.running\n    if start:\n"
                "        self._state.running = True\n",
            ),
        ),
        _WRITERS,
        Settings(strategy="random", runs=10_000, limit=4000),
    ),
    Mutant(
        "a runner that ends does not look for a quicker writer",
        OneByOne,
        (("_rest", "and self.outstanding:", "and False:"),),
        _WRITERS,
    ),
    Mutant(
        "the runner's end is not noted",
        OneByOne,
        (("_rest", "self._state.running = False\n    ", "return False\n    "),),
        _WRITERS,
    ),
    Mutant(
        "a writer waits for the queue to be at rest",
        OneByOne,
        (("_due", "waiter.target > passed", "True"),),
        _WRITERS,
    ),
    Mutant(
        "a writer waits for nothing",
        OneByOne,
        (("_store_cwriter", "self._state.passed + self.outstanding, done", "self._state.passed, done"),),
        _WRITERS,
    ),
    Mutant(
        "a write that is dropped is never done",
        OneByOne,
        (("_store_cwriter", "return False", "return True"),),
        _WRITERS,
    ),
    Mutant(
        "CREADR and what has passed move one after the other",
        OneByOne,
        (("_execute", "with self._lock:  # a writer counts from both", "if True:"),),
        _THREE,
    ),
    Mutant("CREADR does not wrap", OneByOne, (("_execute", "(0 if at == size else at)", "at"),), _BOUNDS),
    Mutant(
        "a CWRITER past the queue counts", OneByOne, (("outstanding", " and write < size", ""),), _BOUNDS
    ),
    Mutant(
        "a slice does not hold the tables' mutex",
        OneByOne,
        (("_slice", "async with self._tables_mutex:", "if True:"),),
        _MSIS,
    ),
    # --- registers and MSIs
    Mutant("CWRITER may be the end of the queue", Bench, (("write_cwriter", ">=", ">"),), _BOUNDS),
    Mutant(
        "an MSI looks before it has the lock",
        Bench,
        (
            ("try_msi", "with self._lock:\n        found", "if True:\n        found"),
            ("try_msi", "        self._delivery.msi(source, lpi, number)\n", "        with self._lock:\n"
             "            self._delivery.msi(source, lpi, number)\n"),
        ),
        _MSIS,
    ),
    Mutant(
        "an MSI's looks do not hold the tables' mutex",
        Bench,
        (("_look_up_msi", "async with self.tables_mutex:", "if True:"),),
        _MSIS,
    ),
    Mutant("vCPUs are let go without the lock", Bench, (("resume", "with self._lock:", "if True:"),), _RESTORE),
    # --- commands, tables, delivery
    Mutant("MOVI without the lock", Commands, (("_movi", "with self._lock:", "if True:"),), _MSIS),
    Mutant("MAPC moves events without the lock", Commands, (("_walk", "with self._lock:", "if True:"),), _MSIS),
    Mutant("DISCARD without the lock", Commands, (("_discard", "with self._lock:", "if True:"),), _MSIS),
    Mutant(
        "what is pending does not move", HeldTables, (("_retarget", "self._delivery.move(old, lpi)", "pass"),), _MSIS
    ),
    Mutant(
        "a move forgets who raised",
        Delivery,
        (("move", "target.raised = (*target.raised, source)", "pass"),),
        _MSIS,
    ),
    Mutant("an EOI delivers nothing more", Delivery, (("eoi", "if lpi.pending:", "if False:"),), _MSIS),
    Mutant("a held LPI is delivered again", Delivery,
           (("offer", "and lpi.out == NONE ", ""), ("msi", "if lpi.out != NONE:", "if False:")), _MSIS),
    # --- restore
    Mutant(
        "a VMM's CREADR is a write of the guest",
        Uaccess,
        (("set_its_reg", "if offset == GITS_CREADR:", "if False:"),),
        _RESTORE,
    ),
    Mutant(
        "a revision is not looked at",
        Uaccess,
        (("set_its_reg", "if value != its.profile.iidr:", "if False:"),),
        _RESTORE,
    ),
    Mutant(
        "EnableLPIs is restored and has no effect",
        Uaccess,
        (("set_redist_reg", "await redistributor.settle(zeroed=False)", "pass"),),
        _RESTORE,
    ),
    Mutant("devices before collections", _Restore, (("run", "await self._collections()", "pass"),), _RESTORE),
    Mutant("only the first event of an ITT", _Restore, (("_events", "if not entry.next:", "if True:"),), _RESTORE),
    Mutant(
        "the next event is one too far", _Restore, (("_events", "event += entry.next", "event += entry.next + 1"),),
        _RESTORE,
    ),
)  # fmt: skip
