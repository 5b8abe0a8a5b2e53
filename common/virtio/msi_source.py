"""MSIs of one device: numbered per event, sent again until the ITS says that the guest took them.

An interrupt of which the write to GITS_TRANSLATER was lost (the ITS restarted, the event was not mapped yet) must not
be lost for good. So each event has a number that only grows; the device keeps the highest raised and repeats it
until the highest confirmed reaches it, or until it is reset. Repeats are harmless: whoever has seen the number
confirms it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from common.wire.messages import Message, Msi

#: Seconds after which an unconfirmed MSI is sent again.
RESEND_AFTER: Final = 0.1


class MsiSource:
    """The MSI side of device ``device`` (DeviceID) of ``guest``; ``send`` takes Msi messages for the ITS."""

    __slots__ = ("_raised", "_sent_at", "device", "guest", "raised", "resent", "send")

    def __init__(self, guest: str, device: int, send: Callable[[Message], None]) -> None:
        self.guest: Final = guest
        self.device: Final = device
        self.send = send
        self._raised: dict[int, int] = {}
        self._sent_at: dict[int, float] = {}
        self.raised = 0
        self.resent = 0

    @property
    def unconfirmed(self) -> int:
        """Events with an interrupt that the guest is not known to have taken."""
        return len(self._sent_at)

    def raise_(self, event: int, number: int, now: float) -> None:
        """Interrupt ``number`` of ``event``; ignored where a higher one is already on its way."""
        if number <= self._raised.get(event, 0):
            return
        self._raised[event] = number
        self._sent_at[event] = now
        self.raised += 1
        self.send(Msi(self.guest, self.device, event, number))

    def done(self, event: int, number: int) -> None:
        """The guest took an LPI that covers ``event`` up to ``number``."""
        if number >= self._raised.get(event, 0):
            self._sent_at.pop(event, None)

    def forget(self) -> None:
        """The device was reset: its interrupts are nobody's any more, and none is sent again."""
        self._raised.clear()
        self._sent_at.clear()

    def tick(self, now: float) -> None:
        """Send again what has waited too long."""
        for event, at in self._sent_at.items():
            if now - at >= RESEND_AFTER:
                self._sent_at[event] = now
                self.resent += 1
                self.send(Msi(self.guest, self.device, event, self._raised[event]))

    def resend_all(self, now: float) -> None:
        """The link to the ITS came back: everything unconfirmed goes out at once."""
        for event in self._sent_at:
            self._sent_at[event] = now
            self.resent += 1
            self.send(Msi(self.guest, self.device, event, self._raised[event]))
