"""A guest's trace as a ladder: a column for each of its CPUs, and one for the platform where its trace is at hand.

The two clocks have nothing in common, so the platform's rows stand where they must: a request after the guest began to
send it, an answer before the guest had it, and otherwise as late as possible. Times are the guest's, in ms since the
first row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.scmi.header import COMMAND
from common.scmi.status import status_name
from services.lab.columns import columns
from services.linux_guest.ftrace import Event, MessageDump, ResponseWait, RxDone, XferBegin, XferEnd
from services.linux_guest.trace_compare import compare, describe, title

#: Widest column: a message's name must fit.
WIDTH: Final = 48
PLATFORM: Final = "platform"
#: Bytes of a payload that are shown.
_SHOWN: Final = 16


def ladder(guest: Sequence[Event], platform: Sequence[MessageDump] = ()) -> str:
    """The drawing. Where the platform's trace is given the last line says whether the two agree."""
    steps = merge(guest, platform)
    start = guest[0].seconds if guest else 0.0
    rows = [(lane, text(event, lane, start)) for lane, event in steps]
    actors = [f"cpu{number}" for number in sorted({event.cpu for event in guest})]
    lines = columns(rows, actors=[*actors, *([PLATFORM] if platform else [])], width=WIDTH)
    if platform:
        result = compare((one for one in guest if isinstance(one, MessageDump)), platform)
        lines += [f"!! {line}" for line in result.lines()] or [
            f"guest and platform agree on {len(result.pairs)} messages"
        ]
    return "\n".join(lines) + "\n"


def merge(guest: Sequence[Event], platform: Sequence[MessageDump]) -> list[tuple[str, Event]]:
    """(lane, event) in an order that could have been: both sides keep theirs."""
    dumps = [one for one in guest if isinstance(one, MessageDump)]
    partner = {id(mine): theirs for mine, theirs in compare(dumps, platform).pairs}
    place = {id(one): at for at, one in enumerate(platform)}
    steps: list[tuple[str, Event]] = []
    done = 0
    for event in guest:
        theirs = partner.get(id(event))
        if theirs is not None and theirs.kind != "CMND":
            upto = max(done, place[id(theirs)] + 1)
            steps += [(PLATFORM, one) for one in platform[done:upto]]
            done = upto
        steps.append((f"cpu{event.cpu}", event))
    return steps + [(PLATFORM, one) for one in platform[done:]]


def text(event: Event, lane: str, start: float) -> str:
    """One row. ``start``: the seconds that count as 0; the platform's rows have no time."""
    when = "" if lane == PLATFORM else f"{(event.seconds - start) * 1000:.2f} "
    if isinstance(event, MessageDump):
        arrow = "→" if (event.kind == "CMND") == (lane != PLATFORM) else "←"
        status = "" if event.kind in ("CMND", "NOTI") else f" {_status(event)}"
        payload = event.payload[:_SHOWN].hex() + ("…" if len(event.payload) > _SHOWN else "")
        return f"{when}{arrow} {describe(event)}{status} {payload}".rstrip()
    kind = event.type if isinstance(event, RxDone) else COMMAND
    name = f"{title(event.protocol, event.message, kind)} #{event.token}"
    if isinstance(event, XferBegin):
        return f"{when}begin {name}{' poll' if event.poll else ''}"
    if isinstance(event, ResponseWait):
        how = "poll" if event.poll else "wait"
        return f"{when}{how} {name} {event.timeout:g} s"
    if isinstance(event, XferEnd):
        return f"{when}end {name} {event.status or 'ok'}"
    return f"{when}received {name}"


def _status(event: MessageDump) -> str:
    return "thrown away" if event.thrown_away else status_name(event.status)
