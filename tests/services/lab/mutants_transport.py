"""One fault each in the transport's channel and in what the agent does around it, for scenarios to find.

Caught or not, each is a row of docs/races/mutants.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from common.virtio.split_driver import SplitDriver
from services.guest_driver.scmi_agent import ScmiAgent
from services.guest_driver.scmi_response import Responses
from services.guest_driver.scmi_virtio import TxChannel
from services.lab.scenario import Build, Settings
from services.lab.scenarios.vio_rig import Classes
from tests.services.lab.mutation import mutate_all
from tests.services.lab.transport_inputs import INPUTS

#: How to search.
RANDOM: Final = Settings(strategy="random", runs=1500)
NO_PREEMPTION: Final = Settings(preemptions=0)
ONE_PREEMPTION: Final = Settings(preemptions=1)
SEARCHES: Final = {"random": RANDOM, "0": NO_PREEMPTION, "1": ONE_PREEMPTION}

Edit = tuple[str, str, str]
"""Method, old, new."""


@dataclass(frozen=True)
class Mutant:
    """``edits`` of ``cls``. ``given``: the input that is run with it in the place of ``cls``; ``search``: how."""

    name: str
    cls: type[Any]
    given: str
    search: str
    edits: tuple[Edit, ...]
    caught: bool = True

    def make(self) -> type[Any]:
        return mutate_all(self.cls, self.edits)

    def build(self, made: type[Any]) -> Build:
        """A mutant of Responses has to be put into the module of ScmiAgent besides."""
        classes: dict[type[Any], Callable[[], Classes]] = {
            TxChannel: lambda: Classes(channel=made),
            ScmiAgent: lambda: Classes(agent=made),
            SplitDriver: lambda: Classes(driver=made),
            Responses: Classes,
        }
        return INPUTS[self.given](classes[self.cls]())


def tx(name: str, given: str, search: str, *edits: Edit) -> Mutant:
    return Mutant(name, TxChannel, given, search, edits)


def agent(name: str, given: str, search: str, *edits: Edit) -> Mutant:
    return Mutant(name, ScmiAgent, given, search, edits)


def same(name: str, cls: type[Any], given: str, *edits: Edit) -> Mutant:
    """One that is argued to be no fault."""
    return Mutant(name, cls, given, "0", edits, caught=False)


MUTANTS: Final = (
    # --- messages
    tx("get_free_msg() without the lock", "one message, sleepers", "random",
       ("get_free_msg", "with self.free_lock:", "if True:")),
    tx("the message is freed with one use left", "double-free", "0",
       ("msg_release", "if msg.users.add(-1):", "if msg.users.add(-1) > 1:")),
    tx("a message's uses are counted in two steps", "double-free", "1",
       ("msg_release", "if msg.users.add(-1):", "msg.users.store(msg.users.load() - 1)\n    if msg.users.load():")),
    # --- sending
    tx("send_message() without the lock", "two senders", "random",
       ("send_message", "with self.lock:", "if True:")),
    tx("EBUSY stays in the channel", "one message, sleepers", "0",
       ("send_message", "self.release()\n        raise ChannelBusyError", "raise ChannelBusyError")),
    tx("send_message() does not ask whether the channel is closing", "shutdown", "random",
       ("send_message", "if not self.acquire():", "if self.users.add(1) < 0:")),
    tx("the message is not marked as polled for", "poll-index-order", "0",
       ("send_message", "msg.poll_status = POLLING\n", "pass\n")),
    tx("the poller's use is not counted", "poll-index-order", "0",
       ("send_message", "msg.users.add(1)", "pass")),
    tx("the poller's use is counted after the lock", "double-free", "1",
       ("send_message", "msg.users.add(1)", "pass"),
       ("send_message", "    finally:\n        self.release()",
        "        if poll:\n            msg.users.add(1)\n    finally:\n        self.release()")),
    tx("the poller is not counted in the channel", "shutdown, poller", "1",
       ("send_message", "self.users.add(1)", "pass"),
       ("mark_txdone", "    self.release()", "    pass")),
    tx("what was not sent keeps the poller's use", "broken", "0",
       ("_unsend", "if xfer.poll:\n        self.msg_release(msg)", "if xfer.poll:\n        pass")),
    # --- polling
    tx("poll_done() without the lock", "two loops", "random",
       ("poll_done", "with self.lock:", "if True:")),
    tx("the length is stored after POLL_DONE", "poll-index-order", "1",
       ("poll_done", "next_msg.rx_len = length", "pass"),
       ("poll_done", "                if next_msg is msg:",
        "                next_msg.rx_len = length\n                if next_msg is msg:")),
    tx("POLL_DONE without the message's lock", "timed-out-leak", "random",
       ("poll_done", "with next_msg.poll_lock:", "if True:")),
    tx("another loop's message is not marked", "poll-index-order", "0",
       ("poll_done", "                    if polled:", "                    if polled and next_msg is msg:")),
    tx("POLL_DONE is not looked at", "poll-index-order", "0",
       ("poll_done", "if msg.poll_status == POLL_DONE:", "if False:")),
    tx("a prefetched message is dropped", "prefetched-reply", "0",
       ("poll_done", "self.pending_cmds_list.append(next_msg)", "pass")),
    tx("the loop leaves callbacks off", "prefetched-reply", "random",
       ("poll_done", "pending = not vqueue.enable_cb()", "pass")),
    tx("no second look when the loop has found its own", "prefetched-reply", "random",
       ("poll_done", "pending = not vqueue.enable_cb()", "vqueue.enable_cb_prepare()")),
    tx("the loop does not enable callbacks again", "gives up", "0",
       ("poll_done", "msg.poll_idx = vqueue.enable_cb_prepare()", "msg.poll_idx = vqueue.snapshot()")),
    tx("no second look when the loop has not found its own", "gives up", "1",
       ("poll_done", "pending = vqueue.poll(msg.poll_idx)", "pass")),
    tx("no worker's kick", "prefetched-reply", "0",
       ("poll_done", "if prefetched or pending:", "if False:")),
    tx("a kick for what comes only", "prefetched-reply", "0",
       ("poll_done", "if prefetched or pending:", "if pending:")),
    tx("a kick for what was prefetched only", "prefetched-reply", "random",
       ("poll_done", "if prefetched or pending:", "if prefetched:")),
    tx("the loop does not see that the channel is closing", "shutdown, silent", "0",
       ("poll_done", "if self.closing:", "if False:")),
    # --- the worker
    tx("what is handed over stays on the list", "prefetched-reply", "0",
       ("deferred_tx_worker", "self.pending_cmds_list.popleft() if self.pending_cmds_list else None",
        "next(iter(self.pending_cmds_list), None)")),
    tx("the worker hands over one message", "two prefetched", "0",
       ("deferred_tx_worker", "while True:", "for _ in range(1):")),
    tx("the worker does not free", "prefetched-reply", "0",
       ("deferred_tx_worker", "self.msg_release(msg)", "pass")),
    tx("the worker does not look at the ring", "prefetched-reply", "random",
       ("deferred_tx_worker", "self.complete_cb()", "pass")),
    tx("the worker stays in the channel", "shutdown, kick", "0",
       ("deferred_tx_worker", "    finally:\n        self.release()", "    finally:\n        pass")),
    # --- mark_txdone
    tx("POLL_TIMEOUT is not set", "timed-out-leak", "0",
       ("mark_txdone", "msg.poll_status = POLL_TIMEOUT", "pass")),
    tx("mark_txdone() without the message's lock", "timed-out-leak", "random",
       ("mark_txdone", "with msg.poll_lock:", "if True:")),
    tx("the state is set after the poller has let go", "late", "1",
       ("mark_txdone", "    free = self.msg_release(msg)\n", ""),
       ("mark_txdone", "    with msg.poll_lock:", "    free = self.msg_release(msg)\n    with msg.poll_lock:"),
       ("mark_txdone", "        self.msg_release(msg)\n    self.release",
        "        free = self.msg_release(msg)\n    self.release")),
    tx("the ring's use is given back whoever dequeued", "double-free", "1",
       ("mark_txdone", "if done:", "if done or not timed_out:")),
    tx("the ring's use is given back whatever happened", "timed-out-leak", "0",
       ("mark_txdone", "if done:", "if True:")),
    tx("the ring's use is not given back", "poll-index-order", "0",
       ("mark_txdone", "if done:", "if False:")),
    tx("the poller stays in the channel", "one message", "0",
       ("mark_txdone", "    self.release()", "    pass")),
    # --- the callback
    tx("complete_cb() without the lock", "prefetched-reply", "1",
       ("complete_cb", "with self.lock:", "if True:")),
    tx("the callback does not enable itself", "two sleepers", "random",
       ("complete_cb", "if vqueue.enable_cb():", "if True:")),
    tx("no second look when the callback is enabled", "two sleepers", "random",
       ("complete_cb", "if vqueue.enable_cb():", "vqueue.enable_cb_prepare()\n                    if True:")),
    tx("the callback does not free", "one message, sleepers", "0",
       ("complete_cb", "self.finalize(msg)", "pass")),
    tx("the callback does not enter the channel", "shutdown, sleeper", "0",
       ("complete_cb", "while self.acquire():", "while True:"),
       ("complete_cb", "        finally:\n            self.release()", "        finally:\n            pass")),
    tx("the callback frees, then hands over", "reused", "1",
       ("complete_cb", "self.rx_callback(msg)\n", "self.finalize(msg)\n"),
       ("complete_cb", "                self.finalize(msg)\n        except",
        "                self.rx_callback(msg)\n        except")),
    # --- shutdown
    tx("the flag is looked at, then the user is counted", "shutdown, sleeper", "1",
       ("acquire", "self.users.add(1)\n    if self.closing:\n        self.release()\n        return False",
        "if self.closing:\n        return False\n    self.users.add(1)")),
    tx("users are counted in two steps", "shutdown", "1",
       ("release", "if self.users.add(-1) == 0:",
        "self.users.store(self.users.load() - 1)\n    if self.users.load() == 0:")),
    tx("close() does not wait", "shutdown, sleeper", "1",
       ("close", "await super().close()", "self.closing = True")),
    tx("close() sets the flag after it has left", "shutdown, sleeper", "random",
       ("close", "await super().close()",
        "self.release()\n    self.closing = True\n    await self.shutdown_done.wait()")),
    tx("close() does not end the worker", "shutdown, sleeper", "0",
       ("close", "await self.deferred_tx_wq.stop()", "pass")),
    tx("reclaim() forgets the pending list", "shutdown, kick", "0",
       ("reclaim", "while self.pending_cmds_list:", "while False:")),
    tx("reclaim() forgets the ring", "shutdown, silent", "0",
       ("reclaim", "while (msg := self.vqueue.detach_unused()) is not None:", "while (msg := None) is not None:")),
    # --- the agent
    agent("_begin() without the lock", "two senders", "random",
       ("_begin", "with self._lock:", "if True:")),
    agent("a token is not looked for", "token again", "0",
       ("_begin", "if token in in_flight:", "if False:")),
    agent("_settle() looks without the lock", "may time out", "1",
       ("_settle", "    with self._lock:\n        msg =", "    if True:\n        msg =")),
    agent("the message is given back before it is read", "one message, loops", "random",
       ("_settle", "    with self._lock:\n        msg = xfer.priv\n",
        "    msg = xfer.priv\n    owed = None if msg is None else tx.mark_txdone(False, xfer)\n"
        "    with self._lock:\n"),
       ("_settle", "owed = tx.mark_txdone(expired, xfer)", "owed = expired if owed is None else owed")),
    agent("the token is freed while the platform owes", "token again", "0",
       ("_settle", "if xfer.settled:", "if True:")),
    agent("the loop waits for the ring only", "one message", "0",
       ("_poll", "while xfer.state == SENT_OK:", "while True:")),
    Mutant("response() without the lock", Responses, "may time out", "1",
       (("response", "with self._lock:", "if True:"),)),
    # --- the ring
    Mutant("a snapshot of 16 bits", SplitDriver, "aba-wrap", "0",
       (("poll", "return count != snapshot or idx != count & 0xFFFF", "return idx != snapshot & 0xFFFF"),)),
    # --- no faults
    same("a message keeps its last poll_status", TxChannel, "one message",
       ("get_free_msg", "msg.poll_status = NOT_POLLED", "pass")),
    same("the free list grows without its lock", TxChannel, "one message",
       ("msg_release", "with self.free_lock:", "if True:")),
    same("the pending list grows without its lock", TxChannel, "prefetched-reply",
       ("poll_done", "with self.pending_lock:", "if True:")),
    same("the worker takes without the list's lock", TxChannel, "prefetched-reply",
       ("deferred_tx_worker", "with self.pending_lock:", "if True:")),
    same("the message is bound after the kick", TxChannel, "poll-index-order",
       ("send_message", "xfer.priv = msg\n", "pass\n"),
       ("send_message", "                self.notify()",
        "                self.notify()\n            if poll:\n                xfer.priv = msg")),
    same("what was not sent stays bound", TxChannel, "broken",
       ("_unsend", "xfer.priv = None", "pass")),
    same("mark_txdone() leaves the message bound", TxChannel, "timed-out-leak",
       ("mark_txdone", "xfer.priv = None", "pass")),
    same("poll_done() leaves callbacks on", TxChannel, "prefetched-reply",
       ("poll_done", "vqueue.disable_cb()", "pass")),
    same("complete_cb() leaves callbacks on", TxChannel, "two sleepers",
       ("complete_cb", "vqueue.disable_cb()", "pass")),
    same("the callback forgets that it is enabled", TxChannel, "two sleepers",
       ("complete_cb", "                    cb_enabled = True", "                    pass")),
    same("the loop goes on behind its own", TxChannel, "prefetched-reply",
       ("poll_done", "found = True\n                    break", "found = True")),
    same("the loop kicks after it has left", TxChannel, "shutdown, kick",
       ("poll_done", "            self.deferred_tx_wq.queue_work(self.deferred_tx_work)\n        self.release()",
        "            self.release()\n            self.deferred_tx_wq.queue_work(self.deferred_tx_work)\n"
        "        else:\n            self.release()")),
    same("the loop is not counted a second time", TxChannel, "shutdown, poller",
       ("poll_done", "if not self.acquire():", "if self.closing:"),
       ("poll_done", "        self.release()", "        pass")),
    same("the worker does not enter the channel", TxChannel, "shutdown, kick",
       ("deferred_tx_worker", "if not self.acquire():", "if self.closing:"),
       ("deferred_tx_worker", "    finally:\n        self.release()", "    finally:\n        pass")),
    same("no look at the ring after the time-out", ScmiAgent, "may time out, polled",
       ("_poll", "tx.poll_done(xfer)\n                return\n    except", "return\n    except")),
    same("the sleeper is woken before its reply is there", Responses, "one message, sleepers",
       ("response", "        self.fetch(xfer, data)\n",
        "        if xfer.done is not None:\n            xfer.done.set()\n        self.fetch(xfer, data)\n")),
    same("poll() does not compare the snapshot", SplitDriver, "two loops",
       ("poll", "count != snapshot or idx != count & 0xFFFF", "idx != count & 0xFFFF")),
)  # fmt: skip
