"""When a device's port reads ``avail->idx`` from memory: the firmware policy that the vDPA thread is about.

Three independent choices (read when the queue object is created, read at the kick, replay a kick that came while the
queue was down) decide whether a memory-map change strands buffers; ``REFETCH`` is how a restarted device asks for
what its predecessor had been given.
"""

from __future__ import annotations

from enum import IntFlag
from typing import Final


class PortPolicy(IntFlag):
    """Bits of ``Create.policy``."""

    READ_AT_CREATE = 1
    READ_AT_KICK = 2
    REPLAY_KICK = 4
    #: send again every chain that was fetched and not used: this device has never seen them
    REFETCH = 8
    #: a fault on purpose: used elements for chains that are not in flight are written all the same
    UNCHECKED = 16


#: What our devices ship: no buffer is ever stranded.
DEFAULT_POLICY: Final = PortPolicy.READ_AT_CREATE | PortPolicy.READ_AT_KICK | PortPolicy.REPLAY_KICK
