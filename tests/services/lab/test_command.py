"""`ringmesh lab`: exit codes, JSON, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.lab import command
from services.lab.command import app
from services.lab.scenario import SCENARIOS, Checks, Scenario, Settings, Variant, register
from services.lab.world import LabWorld
from tests.services.lab.toys import double_free


def unseen(world: LabWorld) -> Checks:
    box: list[int] = []

    async def actor() -> None:
        box.append(1)

    world.spawn("a", actor())
    world.spawn("b", actor())
    return Checks()


def broken(world: LabWorld) -> Checks:
    raise KeyError("bug in a scenario")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command in an empty directory, with one more scenario registered."""
    monkeypatch.chdir(tmp_path)
    one = Settings(preemptions=1)
    register(
        Scenario(
            "toy",
            "no thread",
            "drop the last reference twice",
            (
                Variant("posted", "fails", double_free(False), "no lock", one),
                Variant("shipped", "holds", double_free(True), "", one, "one-lock"),
                Variant("unlocked", "fails", double_free(False), "", one, "as-posted"),
                Variant("unseen", "holds", unseen),
                Variant("broken", "holds", broken),
            ),
        )
    )
    yield lambda *args: CliRunner().invoke(app, args)
    del SCENARIOS["toy"]


KEYS = [
    "version", "scenario", "variant", "verdict", "strategy", "memory", "seed", "exhaustive", "schedules", "steps",
    "preemptions", "failure", "witness",
]  # fmt: skip


def test_list(lab: Any) -> None:
    listed = json.loads(lab("list", "--json").stdout)
    assert [s["name"] for s in listed] == list(SCENARIOS)
    for scenario in listed:
        assert set(scenario) == {"name", "thread", "variants"}
        assert "shipped" in [v["name"] for v in scenario["variants"]]
        assert {v["expect"] for v in scenario["variants"]} <= {"fails", "holds"}
    text = lab("list").stdout
    assert "aba-wrap" in text
    assert "posted" in text
    assert "  shipped = one-lock " in text


def test_held(lab: Any) -> None:
    done = lab("run", "toy", "--json")
    assert done.exit_code == 0
    out = json.loads(done.stdout)
    assert list(out) == KEYS
    assert (out["verdict"], out["exhaustive"], out["failure"], out["witness"]) == ("holds", True, None, None)
    assert (out["variant"], out["strategy"], out["preemptions"], out["schedules"]) == ("shipped", "exhaustive", 1, 2)
    assert "every one with at most 1 preemption;" in lab("run", "toy").stdout


def test_failed_then_replayed(lab: Any, tmp_path: Path) -> None:
    done = lab("run", "toy", "--variant", "posted", "--json", "--trace", "t.jsonl", "--html", "t.html")
    assert done.exit_code == 1
    out = json.loads(done.stdout)
    assert list(out) == KEYS
    assert out["failure"] == {"kind": "final", "actor": "", "detail": "freed 2 times"}
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 8
    assert "</html>" in (tmp_path / "t.html").read_text()
    first = (tmp_path / out["witness"]).read_bytes()
    text = lab("run", "toy", "--variant", "posted")
    assert text.exit_code == 1
    assert "!! final: freed 2 times" in text.stdout
    assert (tmp_path / out["witness"]).read_bytes() == first
    again = lab("replay", out["witness"])
    assert again.exit_code == 1
    assert again.stdout in text.stdout
    assert lab("replay", out["witness"], "--full", "--trace", "u.jsonl").exit_code == 1
    assert (tmp_path / "u.jsonl").read_bytes() == (tmp_path / "t.jsonl").read_bytes()


def test_a_variant_is_reported_and_replayed_under_the_name_asked_for(lab: Any) -> None:
    assert json.loads(lab("run", "toy", "--variant", "one-lock", "--json").stdout)["variant"] == "one-lock"
    assert "toy/one-lock: holds" in lab("run", "toy", "--variant", "one-lock").stdout
    out = json.loads(lab("run", "toy", "--variant", "as-posted", "--json").stdout)
    assert (out["variant"], out["witness"]) == ("as-posted", "witness-toy-as-posted.json")
    assert lab("replay", out["witness"]).exit_code == 1


def test_replay_of_what_has_changed_since(lab: Any, tmp_path: Path) -> None:
    path = tmp_path / lab("run", "toy", "--variant", "posted", "--json").stdout.split('"witness": "')[1].split('"')[0]
    text = path.read_text()
    path.write_text(text.replace("freed 2 times", "freed 3 times"))
    assert lab("replay", str(path)).exit_code == 3
    path.write_text(text.replace('["cpu0", ', '["cpu7", '))
    assert lab("replay", str(path)).exit_code == 2
    path.write_text(text.replace('"memory": "sc"', '"memory": "tso"'))
    assert lab("replay", str(path)).exit_code == 2
    head = text[: text.index('"schedule"')].replace('"posted"', '"shipped"')
    path.write_text(head + '"schedule": []}')
    assert lab("replay", str(path)).exit_code == 0
    path.write_text(head.replace('"shipped"', '"unseen"') + '"schedule": []}')
    assert lab("replay", str(path)).exit_code == 3
    assert lab("replay", "nowhere.json").exit_code == 2


def test_not_judged(lab: Any) -> None:
    done = lab("run", "toy", "--variant", "unseen", "--json")
    assert done.exit_code == 3
    out = json.loads(done.stdout)
    assert out["verdict"] == "not judged"
    assert "a and b share a list" in out["error"]
    assert "a and b share a list" in done.stderr
    internal = lab("run", "toy", "--variant", "broken")
    assert internal.exit_code == 3
    assert "internal error: KeyError" in internal.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nothing",), "there are aba-wrap"),
        (("toy", "--variant", "x"), "it has posted, one-lock, shipped"),
        (("toy", "--strategy", "pct"), "there are random, exhaustive"),
        (("toy", "--strategy", "dpor"), "there are random, exhaustive"),
        (("toy", "--memory", "weak"), "there is sc"),
        (("toy", "--preemptions", "-1"), "not negative"),
        (("toy", "--runs", "-1"), "--runs -1"),
        (("toy", "--variant", "posted", "--html", "no/such/dir.html"), "no/such/dir.html"),
        (("toy", "--colour"), ""),
    ],
)
def test_usage(lab: Any, args: tuple[str, ...], says: str) -> None:
    done = lab("run", *args)
    assert done.exit_code == 2
    assert says in done.stderr


def test_random_runs(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = json.loads(lab("run", "toy", "--strategy", "random", "--runs", "50", "--seed", "9", "--json").stdout)
    assert (out["schedules"], out["seed"], out["preemptions"], out["exhaustive"]) == (50, 9, None, False)
    monkeypatch.setattr(command, "DEFAULT_RUNS", 20)
    assert json.loads(lab("run", "toy", "--strategy", "random", "--json").stdout)["schedules"] == 20
