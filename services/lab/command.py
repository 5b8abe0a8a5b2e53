"""``ringmesh lab list | run | replay``: a typer app that the main command mounts.

Exit codes: 0 the variant held, 1 it failed (the witness was saved), 2 usage, 3 not judged (unwatched sharing or an
internal error).
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

import services.lab.scenarios  # noqa: F401  (registers every scenario)
from common.errors import LocalError, RemoteError
from services.lab.explore import MEMORIES, Outcome, Result, explore, replay, strategy_of
from services.lab.ladder import ladder, trace_lines
from services.lab.own import scenario_of
from services.lab.page import page
from services.lab.scenario import SCENARIOS, Scenario, Settings, Variant
from services.lab.strategies import NAMES
from services.lab.witness import VERSION, Witness, load, save

app: Final = typer.Typer(help="Search a race, show it, prove a fix.", no_args_is_help=True)

HELD: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_JUDGED: Final = 3

#: schedules of a random search that does not say how many
DEFAULT_RUNS: Final = 10_000

_CODES: Final = {"holds": HELD, "fails": FAILED, "not judged": NOT_JUDGED}


def _usage(message: object) -> typer.Exit:
    typer.echo(f"ringmesh lab: {message}", err=True)
    return typer.Exit(USAGE)


def listing() -> list[dict[str, Any]]:
    """What ``lab list --json`` prints."""
    return [
        {"name": s.name, "thread": s.thread, "variants": [{"name": n, "expect": s.variant(n).expect} for n in s.names]}
        for s in SCENARIOS.values()
    ]


@app.command("list")
def list_scenarios(as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False) -> None:
    """The races that can be run, and what is expected of each variant."""
    if as_json:
        typer.echo(json.dumps(listing(), ensure_ascii=False, indent=2))
        return
    for scenario in SCENARIOS.values():
        typer.echo(f"{scenario.name}: {scenario.about}\n  thread: {scenario.thread}")
        for variant in scenario.variants:
            names = " = ".join(filter(None, (variant.name, variant.alias)))
            typer.echo(f"  {names:24} {variant.expect:6} {variant.about}".rstrip())


def _settings(
    variant: Variant,
    strategy: str | None,
    preemptions: int | None,
    memory: str | None,
    runs: int | None,
    seed: int | None,
) -> Settings:
    """The variant's own settings with the flags on top. Raises LocalError for what does not exist."""
    own = variant.settings
    settings = replace(
        own,
        strategy=own.strategy if strategy is None else strategy,
        preemptions=own.preemptions if preemptions is None else preemptions,
        memory=own.memory if memory is None else memory,
        runs=own.runs if runs is None else runs,
        seed=own.seed if seed is None else seed,
    )
    if settings.strategy == "random" and runs is None and not settings.runs:
        settings = replace(settings, runs=DEFAULT_RUNS)
    if settings.runs < 0:
        raise LocalError(f"--runs {settings.runs}: a number of schedules is not negative")
    strategy_of(settings)
    return settings


def report(
    scenario: Scenario, variant: Variant, settings: Settings, result: Result, path: Path | None
) -> dict[str, Any]:
    """What ``lab run --json`` prints. ``failure`` is null or ``{"kind", "actor", "detail"}``; ``seed`` matters for
    the random strategy only; ``error`` is there when there is no verdict."""
    failure = result.failure
    out: dict[str, Any] = {
        "version": VERSION,
        "scenario": scenario.name,
        "variant": variant.name,
        "verdict": result.verdict,
        "strategy": settings.strategy,
        "memory": settings.memory,
        "seed": settings.seed,
        "exhaustive": result.exhaustive,
        "schedules": result.schedules,
        "steps": result.steps,
        "preemptions": result.preemptions,
        "failure": None
        if failure is None
        else {"kind": failure.kind, "actor": failure.actor, "detail": failure.detail},
        "witness": None if path is None else str(path),
    }
    if result.error is not None:
        out["error"] = result.error
    return out


def _traces(outcome: Outcome, title: str, trace: Path | None, html: Path | None) -> None:
    if trace is not None:
        trace.write_text("".join(line + "\n" for line in trace_lines(outcome)), encoding="utf-8")
    if html is not None:
        html.write_text(page(outcome, title), encoding="utf-8")


def _say(scenario: Scenario, variant: Variant, settings: Settings, result: Result) -> None:
    bound = ""
    if settings.strategy == "exhaustive":
        whole = ", every one" if result.exhaustive else ""
        bound = f"{whole} with at most {settings.preemptions} preemption{'s' * (settings.preemptions != 1)}"
    typer.echo(
        f"{scenario.name}/{variant.name}: {result.verdict} ({settings.strategy}, {settings.memory}): "
        f"{result.schedules} schedules{bound}; {result.steps} steps"
    )


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="a name from `lab list`, or a file FILE.py that registers one")],
    variant: Annotated[str, typer.Option(help="which form of the algorithm")] = "shipped",
    strategy: Annotated[str | None, typer.Option(help=" or ".join(NAMES))] = None,
    preemptions: Annotated[int | None, typer.Option(help="bound of the exhaustive search")] = None,
    memory: Annotated[str | None, typer.Option(help=" or ".join(MEMORIES))] = None,
    runs: Annotated[int | None, typer.Option(help="at most so many schedules")] = None,
    seed: Annotated[int | None, typer.Option(help="of the random strategy")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
    html: Annotated[Path | None, typer.Option(help="write the ladder as a page")] = None,
    trace: Annotated[Path | None, typer.Option(help="write the steps as JSON lines")] = None,
) -> None:
    """Search one variant. Without flags: with the settings for which its expected outcome is claimed.

    The ladder, page and trace are those of the failing schedule; if none failed, of the default schedule.
    """
    try:
        found = scenario_of(scenario)
        chosen = replace(found.variant(variant), name=variant)  # reported, and replayed, under the name asked for
        settings = _settings(chosen, strategy, preemptions, memory, runs, seed)
    except LocalError as error:
        raise _usage(error) from None
    path: Path | None = None
    try:
        result = explore(chosen.build, settings, _progress if sys.stderr.isatty() else None)
        if result.verdict == "fails" and result.failure is not None:
            path = Path(f"witness-{found.name}-{chosen.name}.json")
            save(_witness(scenario, chosen, settings, result), path)
        outcome = None
        if result.verdict == "fails" or (result.verdict == "holds" and (trace or html)):
            outcome = replay(chosen.build, result.schedule, settings.limit)
            _traces(outcome, f"{found.name}/{chosen.name}", trace, html)
    except OSError as error:
        raise _usage(error) from None
    except Exception as error:
        typer.echo(f"ringmesh lab: internal error: {type(error).__name__}: {error}", err=True)
        raise typer.Exit(NOT_JUDGED) from error
    if as_json:
        typer.echo(json.dumps(report(found, chosen, settings, result, path), ensure_ascii=False))
    else:
        if outcome is not None and result.verdict == "fails":
            typer.echo(ladder(outcome))
        _say(found, chosen, settings, result)
        if path is not None:
            typer.echo(f"witness: {path}  (ringmesh lab replay {path})")
    if result.error is not None:
        typer.echo(f"ringmesh lab: not judged: {result.error}", err=True)
    raise typer.Exit(_CODES[result.verdict])


def _progress(schedules: int) -> None:
    typer.echo(f"\r{schedules} schedules", err=True, nl=False)


def _witness(scenario: str, variant: Variant, settings: Settings, result: Result) -> Witness:
    """``scenario`` as it was asked for: a name or a file, so that `lab replay` finds it."""
    assert result.failure is not None
    return Witness(
        str(Path(scenario).resolve()) if scenario.endswith(".py") else scenario,
        variant.name,
        settings.memory,
        settings.strategy,
        settings.seed,
        result.preemptions or 0,
        settings.limit,
        result.failure,
        result.schedule,
    )


@app.command("replay")
def replay_witness(
    file: Annotated[Path, typer.Argument(help="a witness that `lab run` saved")],
    full: Annotated[bool, typer.Option("--full", help="every step, nothing folded")] = False,
    html: Annotated[Path | None, typer.Option(help="write the ladder as a page")] = None,
    trace: Annotated[Path | None, typer.Option(help="write the steps as JSON lines")] = None,
) -> None:
    """Repeat a failing schedule step by step and print its ladder. Exit 1 if it fails as recorded, 0 if it holds."""
    try:
        witness = load(file)
        variant = scenario_of(witness.scenario).variant(witness.variant)
        if witness.memory not in MEMORIES:
            raise LocalError(f"{file}: no memory model {witness.memory!r}; there is {', '.join(MEMORIES)}")
        outcome = replay(variant.build, witness.schedule, witness.limit)
        _traces(outcome, f"{witness.scenario}/{witness.variant}", trace, html)
    except (LocalError, RemoteError, OSError) as error:
        raise _usage(error) from None
    sys.stdout.write(ladder(outcome, full))
    if outcome.run.error is not None:
        typer.echo(f"ringmesh lab: not judged: {outcome.run.error}", err=True)
        raise typer.Exit(NOT_JUDGED)
    if outcome.run.failure is None:
        raise typer.Exit(HELD)
    if outcome.run.failure != witness.failure:
        typer.echo(f"ringmesh lab: recorded was {witness.failure}", err=True)
        raise typer.Exit(NOT_JUDGED)
    raise typer.Exit(FAILED)
