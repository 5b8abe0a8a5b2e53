"""A platform that answers late, out of order, twice and never: the agent loses no message, believes no wrong reply, and
its counters add up with the platform's.

``RINGMESH_FAULT_SECONDS=600 pytest -s tests/mesh/test_scmi_faults.py`` is the long run; its numbers are printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from services.mesh.scrape import Sample
from tests.mesh.harness import GUARD, TOKEN, clean, running, scrape, stop, until

pytestmark = pytest.mark.mesh

SECONDS = float(os.environ.get("RINGMESH_FAULT_SECONDS", "60"))
#: of the 128 messages of the guest's cmdq
NEVER = 120
#: the load makes some 60 commands a second under these faults: all of NEVER come to pass in the first half
NEVER_EVERY = max(8, round(SECONDS / 6))
STATES = ("free", "ring", "pending", "poller")


def settings(**values: object) -> list[str]:
    return [word for key, value in values.items() for word in ("--set", f"{key}={value}")]


async def post(admin: str, path: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(admin + path) as answer:
        assert answer.status == 200, await answer.text()
        found: dict[str, Any] = await answer.json()
    return found


def counts(sample: Sample, prefix: str) -> dict[str, int]:
    """``ringmesh_<prefix>_<key>_total`` → its value, by key."""
    start, end = f"ringmesh_{prefix}_", "_total"
    return {
        name.removeprefix(start).removesuffix(end): int(value)
        for (name, _), value in sample.values.items()
        if name.startswith(start) and name.endswith(end)
    }


def messages(sample: Sample) -> dict[str, int]:
    """Messages of the transport by where they are."""
    return {state: int(sample.total("ringmesh_scmi_messages", state=state)) for state in STATES}


async def watch(guest: str, seconds: float) -> list[dict[str, int]]:
    """A scrape a second: in each, every message is somewhere."""
    seen = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(min(1.0, max(0.0, end - time.monotonic())))
        sample = await scrape(guest)
        where = messages(sample)
        assert sum(where.values()) == sample.total("ringmesh_scmi_max_msg") == 128, where
        assert sample.total("ringmesh_scmi_census_violations_total") == 0
        seen.append(where)
    return seen


async def all_said(scmi: str) -> None:
    """The platform holds nothing back any more, and the guest has taken what it sent."""
    async with asyncio.timeout(GUARD):
        while (await scrape(scmi)).total("ringmesh_scmi_faults_held"):  # noqa: ASYNC110  (another process moves it)
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)


@pytest.mark.timeout(SECONDS + 4 * GUARD)
def test_no_message_leaks_no_wrong_reply_and_the_counters_add_up(tmp_path: Path) -> None:
    args = settings(
        WORKLOAD__SCMI_WORKERS=4, WORKLOAD__POLLED_OF_FOUR=2, WORKLOAD__SCMI_TIMEOUT=0.5, WORKLOAD__NET_WINDOW=4,
        WORKLOAD__CENSUS_SECONDS=0.005,
        FAULTS__SEED=1, FAULTS__AFTER=100, FAULTS__LATE=0.1, FAULTS__LATE_SECONDS=1.0, FAULTS__REORDER=0.2,
        FAULTS__DELAYED_TWICE=0.5, FAULTS__NEVER=NEVER, FAULTS__NEVER_EVERY=NEVER_EVERY,
    )  # fmt: skip
    with running("up", *args, report=tmp_path / "r.json") as run:
        services = run.services()
        guest, scmi = services["guest"][1], services["scmi"][1]
        seen = asyncio.run(watch(guest, SECONDS))
        books = asyncio.run(post(guest, "/workload/stop"))["scmi"]
        asyncio.run(all_said(scmi))
        of_guest, of_scmi = asyncio.run(scrape(guest)), asyncio.run(scrape(scmi))
        assert stop(run) == 0, run.text
        report = run.report()["scmi"]
    agent, faults = counts(of_guest, "scmi"), counts(of_scmi, "scmi_faults")
    device, platform = counts(of_scmi, "scmi_device"), counts(of_scmi, "scmi")
    print(json.dumps({"books": books, "agent": agent, "faults": faults, "where": messages(of_guest),
                      "censuses": of_guest.total("ringmesh_scmi_census_censuses_total")}))  # fmt: skip
    assert not any(report[key] for key in ("lost", "duplicated", "corrupted")), run.text

    # each kind of fault came to pass, and each kind of ending
    assert all(faults[key] for key in ("late", "overtaken", "delayed_late", "delayed_twice"))
    assert faults["never"] == NEVER
    for key in ("response_ok", "response_polled_ok", "delayed_response_ok", "xfers_response_timeout",
                "xfers_response_polled_timeout", "err_msg_late"):  # fmt: skip
        assert agent[key] > 0, key
    assert any(where["ring"] > NEVER // 2 for where in seen)

    # every command of the load came to one end, and the agent and the books agree on which
    assert books["sent"] == books["completed"] + books["timed_out"]
    assert books["timed_out"] == agent["xfers_response_timeout"] + agent["xfers_response_polled_timeout"]
    # every command that was sent reached the platform; those of the bring-up are not the load's
    assert agent["sent_ok"] == device["commands"]
    assert 0 < agent["sent_ok"] - books["sent"] < 256
    # every answer and every delayed response, the doubled ones too, was counted once
    said = device["commands"] - faults["never"] + platform["delayed_responses"] + faults["delayed_twice"]
    heard = agent["response_ok"] + agent["response_polled_ok"] + agent["delayed_response_ok"]
    dropped = agent["err_msg_unexpected"] + agent["err_msg_invalid"]
    assert said == heard + dropped
    # what was dropped is late, overtaken, or a second copy; and each of these was dropped
    assert dropped == agent["err_msg_late"] + agent["err_msg_overtaken"] + faults["delayed_twice"]
    # whoever timed out was answered late or never
    assert books["timed_out"] <= agent["err_msg_late"] + faults["never"]
    # and every message but the ones that the platform keeps has come home
    assert messages(of_guest) == {"free": 128 - NEVER, "ring": NEVER, "pending": 0, "poller": 0}


def test_a_chain_used_twice_breaks_the_queue_and_nothing_else(tmp_path: Path) -> None:
    """Up to three commands wait for answers that never come when the platform doubles the answer of another."""
    args = settings(
        WORKLOAD__SCMI_WORKERS=4, WORKLOAD__SCMI_TIMEOUT=100, WORKLOAD__NET_WINDOW=4,
        FAULTS__NEVER=3, FAULTS__NEVER_EVERY=1, FAULTS__DOUBLE_USED=800,
        # a polling loop leaves behind its own reply: the next command may take the head before the copy is looked at
        WORKLOAD__POLLED_OF_FOUR=0,
    )  # fmt: skip
    with running("up", *args, report=tmp_path / "r.json") as run:
        services = run.services()
        pids, (guest, scmi) = run.pids(), (services[role][1] for role in ("guest", "scmi"))

        async def broken() -> tuple[Sample, Sample, dict[str, Any]]:
            async with asyncio.timeout(GUARD):
                while not (await scrape(guest)).total("ringmesh_scmi_channels_broken_total"):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
                # long before anybody's time is over every worker has ended; the network goes on
                books = await post(guest, "/workload/stop")
            return await scrape(guest), await scrape(scmi), books

        of_guest, of_scmi, books = asyncio.run(broken())
        assert run.pids() == pids
        assert stop(run) == 1, run.text
    assert counts(of_scmi, "scmi_faults")["double_used"] == 1
    assert counts(of_guest, "scmi")["channels_broken"] == 1
    assert counts(of_guest, "scmi_census")["violations"] == 0
    assert sum(messages(of_guest).values()) == 128
    # the one that was answered twice or came next, and those of the three that waited: an asynchronous command among
    # them does not, for its delayed response ends it as well
    assert books["scmi"]["timed_out"] == 0
    assert 1 <= books["scmi"]["lost"] <= 5
    assert books["net"]["rx"] > 100
    assert not any(books["net"][key] for key in ("lost", "duplicated", "corrupted"))
    until(lambda: run.said("SCMI channel is broken"), "the log says so")
    for line in ("SCMI channel is broken", "SCMI command not answered"):
        assert sum(line in one for one in run.log) == 1, run.text
    assert not any("Traceback" in one for one in run.log), run.text


def test_more_commands_never_answered_than_the_agent_has_messages_are_refused() -> None:
    with running("up", *settings(FAULTS__NEVER=128)) as run:
        said = until(lambda: run.said("faults.never"), "the refusal")
    assert "127" in said


@pytest.mark.parametrize("on_purpose", [True, False])
def test_commands_that_time_out_are_said_and_are_a_fault_unless_asked_for(on_purpose: bool, tmp_path: Path) -> None:
    args = settings(WORKLOAD__SCMI_TIMEOUT=0.3, WORKLOAD__NET_WINDOW=4)
    if on_purpose:
        args += settings(FAULTS__NEVER=3, FAULTS__NEVER_EVERY=1)
    with running("up", *args, report=tmp_path / "r.json") as run:
        services = run.services()
        time.sleep(1.0)
        if not on_purpose:
            os.kill(services["scmi"][0], signal.SIGSTOP)
            time.sleep(1.0)
            os.kill(services["scmi"][0], signal.SIGCONT)

        async def timed_out() -> None:
            names = [f"ringmesh_scmi_xfers_response_{kind}_total" for kind in ("timeout", "polled_timeout")]
            async with asyncio.timeout(GUARD):
                while not any(map((await scrape(services["guest"][1])).total, names)):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

        asyncio.run(timed_out())
        time.sleep(1.0)
        code = stop(run)
        count = run.report()["scmi"]["timed_out"]
    assert count > 0
    assert not clean(run.report()), run.text
    if on_purpose:
        assert code == 0, run.text
        assert run.lines[-1] == f"nothing lost, nothing doubled, nothing corrupted; {count} SCMI commands timed out"
    else:
        assert code == 1, run.text
        assert run.lines[-1] == f"FAILED: scmi: {count} timed out"
