"""One test file a source file, same name and place: the mirror that CONTRIBUTING.md asks for."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Source files without a test file of their own, and why.
WITHOUT = {
    "common/world.py": "an interface; every world is tested against it",
    "common/errors.py": "exception classes; raised and checked everywhere",
}


def test_every_source_file_has_its_test_file() -> None:
    missing = []
    for source in sorted([*ROOT.glob("services/**/*.py"), *ROOT.glob("common/**/*.py")]):
        name = source.relative_to(ROOT)
        if source.name in {"__init__.py", "__main__.py"} or str(name) in WITHOUT:
            continue
        if not (ROOT / "tests" / name.parent / f"test_{source.name}").is_file():
            missing.append(str(name))
    assert not missing


def test_exceptions_are_still_there() -> None:
    assert [name for name in WITHOUT if not (ROOT / name).is_file()] == []


def test_files_fit_in_a_head() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for path in sorted([*ROOT.glob("services/**/*.py"), *ROOT.glob("common/**/*.py")])
        if (lines := len(path.read_text().splitlines())) > 450
    ]
    assert not long
