"""All benchmarks, one after the other, each in a process of its own: what ``ringmesh bench`` runs.

A benchmark prints either one JSON object or lines ``name  figure µs``; ``--json FILE`` collects both.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
_LINE = re.compile(r"^(?P<name>.*\S)\s+(?P<figure>[\d.]+) µs$")


def run(name: str, *arguments: str) -> dict[str, Any]:
    """The figures of one benchmark. Raises CalledProcessError if it fails."""
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    output = subprocess.run(command, cwd=HERE.parents[1], check=True, stdout=subprocess.PIPE, text=True).stdout
    if output.lstrip().startswith("{"):
        figures: dict[str, Any] = json.loads(output)
        return figures
    matches = filter(None, map(_LINE.match, output.splitlines()))
    return {match["name"]: {"us": float(match["figure"])} for match in matches}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--only", default="")
    parser.add_argument("--profile", action="store_true", help="print also what profile_mesh finds")
    options = parser.parse_args()
    names = sorted(path.stem for path in HERE.glob("bench_*.py"))
    chosen = [name for name in names if options.only in name]
    if not chosen:
        parser.error(f"--only {options.only}: no such benchmark; there are {', '.join(names)}")
    everything: dict[str, Any] = {}
    for bench in chosen:
        print(f"{bench} …", flush=True)
        figures = run(bench)
        everything[bench] = figures
        for name, values in figures.items():
            print(f"  {name:55} " + "  ".join(f"{key} {value}" for key, value in values.items()), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(everything, indent=2) + "\n")
    if options.profile:
        print("profile_mesh …", flush=True)
        subprocess.run([sys.executable, "-m", "tests.bench.profile_mesh"], cwd=HERE.parents[1], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
