"""``forced-free``: a command has timed out, and its message is freed although the platform still owns it.

The comment of the patch of December 2021 says why that must not be: what is freed is reused, and a platform that is
merely late reads the request of another command, or writes its reply over the buffer of one. The command that timed
out keeps its message until the late reply has come; a platform that never answers exhausts the messages.
"""

from __future__ import annotations

from typing import Any, Final

from services.guest_driver.scmi_virtio import Transfer, TxChannel
from services.guest_driver.scmi_xfer import Xfer
from services.lab.scenario import Build, Checks, Scenario, Settings, Variant, register
from services.lab.scenarios.vio_rig import Rig, name_things
from services.lab.world import LabWorld

#: seconds: any finite number may pass at any time
_SOON: Final = 1.0


class Forced(TxChannel):
    """As warned against: whoever gives up waiting takes the message back, the platform's use included."""

    __slots__ = ()

    def mark_txdone(self, timed_out: bool, xfer: Transfer) -> bool:
        msg = xfer.priv
        if msg is None:
            return timed_out
        xfer.priv = None
        self.msg_release(msg)
        free = self.msg_release(msg)
        self.release()
        return not free


class Platform(Rig):
    """The platform of this scenario: it has ``seen`` commands, and is asked for each once."""

    __slots__ = ("seen",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: command -> 1
        self.seen: Final = self.world.table()

    def answer(self, chain: Any) -> None:
        addr, length, _ = chain[1][0]
        request = self.memory.read(addr, length)
        number = request[4]
        if number in self.seen:
            raise AssertionError(f"the platform is asked for command {number} twice")
        self.seen[number] = 1
        self.reply(chain, request)


class LatePlatform(Rig):
    """A platform that reads a request as soon as it comes, and has its answer when some time has passed."""

    __slots__ = ("late",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.late: Final = self.world.event()

    async def serve(self, count: int) -> None:
        for _ in range(count):
            while (chain := self.device.pop()) is None:
                await self.world.relax()
            addr, length, _ = chain[1][0]
            request = self.memory.read(addr, length)
            await self.late.wait()
            self.reply(chain, request)


async def commands(rig: Rig, first: Xfer) -> None:
    """The first may time out at any moment. The second waits for a message, then for its reply."""
    await rig.wait(first, _SOON)
    await rig.insist(1, True)


async def vcpu(rig: Rig) -> None:
    """Lets the late reply go; then this vCPU takes the queue's interrupts, where they are not masked."""
    if isinstance(rig, LatePlatform):
        rig.late.set()
    if not rig.masked:
        await rig.take_interrupts()


def build(cls: type[TxChannel], rig_class: type[Rig], masked: bool) -> Build:
    """The scenario over one channel class: a ring with room for two messages, one of which is somebody else's.
    ``masked``: nobody takes interrupts, a loop must dequeue the late reply."""

    def setup(world: LabWorld) -> Checks:
        rig = world.new(rig_class, world, cls, commands=2, masked=masked)
        name_things(world, rig)
        rig.tx.free_list.popleft()
        world.spawn("cpu0", commands(rig, rig.sent(0, True)))
        world.spawn("device", rig.serve(2))
        if masked:
            world.spawn("worker", rig.workqueue.run())
        if isinstance(rig, LatePlatform) or not masked:
            world.spawn("vcpu", vcpu(rig))

        def final() -> str | None:
            free = len(rig.tx.free_list)
            return None if free == 1 else f"{free} messages are free, and one is somebody else's"

        return Checks(final=final)

    return setup


BUDGET: Final = Settings(strategy="exhaustive", preemptions=1)

SCENARIO: Final = register(
    Scenario(
        name="forced-free",
        thread="PATCH v8 09/11 firmware: arm_scmi: atomic mode for virtio (C. Marussi, December 2021)",
        about="a timed-out message is freed while the platform still owns it",
        variants=(
            Variant(
                "forced", "fails", build(Forced, Platform, True), "freed at once: the request is overwritten", BUDGET
            ),
            Variant(
                "forced-reply",
                "fails",
                build(Forced, LatePlatform, True),
                "freed at once: the late reply meets another command",
                BUDGET,
            ),
            Variant("shipped", "holds", build(TxChannel, Platform, False), "the late reply frees it", BUDGET),
        ),
    )
)
