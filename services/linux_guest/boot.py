"""``ringmesh guest boot``: a guest on the screen until it ends, its time is over, or somebody ends it."""

from __future__ import annotations

import asyncio
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from rich.console import Console

from common.errors import LocalError, RingmeshError
from services.linux_guest.guest import Boot, LinuxGuest
from services.linux_guest.screen import Panes, Plain
from services.mesh.interrupt import INTERRUPTED, Interrupt, InterruptedRunError, unless

#: Seconds for a guest to say GUEST-READY. An emulated one needs a few, on a busy machine some dozens.
READY_TIMEOUT: Final = 120.0
#: Seconds for a guest to power off when it was asked to.
OFF_TIMEOUT: Final = 60.0

#: Keys on a terminal → the state that the platform announces.
KEYS: Final = {"p": "shutdown", "r": "warm_reset"}
_HELP: Final = "p: power off   r: restart   Ctrl-C: end both"


async def run(boot: Boot, *, seconds: float, power_off_after: float | None) -> int:
    """Boot and show. 0 only if the guest was ready; 130 if it was interrupted before.

    ``seconds``: end it after so long (infinite: when it ends by itself). ``power_off_after``: so many seconds after
    GUEST-READY the platform sends the notification of a shutdown. Raises ConfigError for what cannot be booted.
    """
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    terminal = console.is_terminal and sys.stdin.isatty()
    screen = Panes(console) if terminal else Plain(console.print)
    guest = LinuxGuest(boot, screen.show)
    interrupt = Interrupt(guest.kill)
    said = ""
    try:
        with screen:
            screen.status("starting the platform and QEMU …")
            async with guest:
                screen.status(f"admin {guest.admin}   {_HELP if terminal else 'Ctrl-C: end both'}")
                with _keys(lambda key: _pressed(guest, key, screen.status)) if terminal else _nothing():
                    await unless(interrupt.asked, _live(guest, seconds, power_off_after, screen.status))
                # what QEMU says when we end it is no reason
                said = guest.log[-1] if guest.log else "see its console"
    except (InterruptedRunError, LocalError):
        if not interrupt.asked.is_set():
            raise
        return 0 if guest.console.ready is not None else INTERRUPTED
    if guest.console.ready is not None:
        console.print(f"the guest was ready {guest.console.ready:g} s after its start")
        return 0
    console.print(f"the guest never got to GUEST-READY: {said}")
    return 1


async def _live(
    guest: LinuxGuest, seconds: float, power_off_after: float | None, status: Callable[[str], None]
) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(None if seconds == float("inf") else seconds):
            if not await guest.ready(READY_TIMEOUT):
                return
            if power_off_after is not None:
                await guest.ended(power_off_after)
                if guest.running:
                    await guest.system_power("shutdown")
                    if not await guest.ended(OFF_TIMEOUT):
                        status("the guest did not power off")
                return
            while not await guest.ended(3600.0):
                pass


def _pressed(guest: LinuxGuest, key: str, status: Callable[[str], None]) -> None:
    state = KEYS.get(key)
    if state is None or not guest.running:
        return

    async def send() -> None:
        try:
            await guest.system_power(state)
        except RingmeshError as error:
            status(str(error))

    guest.spawn(send())


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """Hear each key of the terminal as it is pressed; it is not shown."""
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    loop = asyncio.get_running_loop()
    tty.setcbreak(number)
    loop.add_reader(number, lambda: pressed(sys.stdin.read(1)))
    try:
        yield
    finally:
        loop.remove_reader(number)
        termios.tcsetattr(number, termios.TCSADRAIN, before)
