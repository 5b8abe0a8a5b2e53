"""``stale-avail``: an available index that the driver moves on while the device's map changes.

Si-Wei Liu, February 2021: ``suspend_vq`` saves avail_idx1; the driver's avail_idx2 reaches memory; ``create_virtqueue``
restores avail_idx1. Whether the buffers between are ever seen depends on three things that the thread asks of the
firmware, here the bits of :class:`~common.virtio.policy.PortPolicy`: is avail->idx read when the queue object is
created, is it read at a kick, and what becomes of a kick that comes while there is nobody to kick.
"""

from __future__ import annotations

from typing import Final

from common.virtio.policy import DEFAULT_POLICY, PortPolicy
from services.lab.scenario import Build, Expect, Scenario, Settings, Variant, register
from services.lab.scenarios.state_after_teardown import AsPosted
from services.lab.scenarios.vdpa_rig import Classes, Input, build

CHANGE: Final = Input("a change of map")
#: a driver that was not asked for a kick gives none
EVENT_IDX: Final = Input("a change of map, EVENT_IDX", event_idx=True)

_SWITCHES: Final = (
    ("create", PortPolicy.READ_AT_CREATE),
    ("kick", PortPolicy.READ_AT_KICK),
    ("replay", PortPolicy.REPLAY_KICK),
)
BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)


def policy_of(digits: str) -> PortPolicy:
    """``"011"``: create, kick, replay."""
    bits = PortPolicy(0)
    for digit, (_, bit) in zip(digits, _SWITCHES, strict=True):
        if digit == "1":
            bits |= bit
    return bits


def _combination(digits: str, expect: Expect, about: str) -> Variant:
    names = [name for digit, (name, _) in zip(digits, _SWITCHES, strict=True) if digit == "1"]
    return Variant("+".join(names) or "none", expect, _over(policy_of(digits)), about, BUDGET, alias=digits)


def _over(policy: PortPolicy) -> Build:
    return build((CHANGE,), Classes(policy=policy))


SCENARIO: Final = register(
    Scenario(
        name="stale-avail",
        thread="Re: PATCH 1/2 vdpa/mlx5: Avoid unnecessary query virtqueue (Si-Wei Liu, February 2021)",
        about="avail->idx moves on while the queue object is made anew: which firmware strands buffers?",
        variants=(
            _combination("000", "fails", "avail->idx is never read"),
            _combination("001", "fails", "a kick is remembered and has nothing to say"),
            _combination("010", "fails", "a kick that finds no queue is gone"),
            _combination("011", "holds", "every kick is looked at in the end"),
            _combination("100", "fails", "what is stored after creation is not seen"),
            _combination("101", "fails", "the same, with a kick that is remembered"),
            _combination("110", "fails", "a kick between creation and resume is gone"),
            Variant(
                "posted-patch",
                "holds",
                build((CHANGE,), Classes(device=AsPosted)),
                "no query at suspend: a change of map saves elsewhere",
                BUDGET,
            ),
            Variant(
                "shipped",
                "holds",
                build((CHANGE, EVENT_IDX), Classes(policy=DEFAULT_POLICY)),
                "read at creation, read at the kick, kicks replayed",
                BUDGET,
                alias="111",
            ),
        ),
    )
)
