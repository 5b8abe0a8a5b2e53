"""One mesh that several files of tests look at and attack while it runs; it has to end clean all the same."""

from __future__ import annotations

from collections.abc import Iterator

import jsonschema
import pytest

from tests.mesh.harness import Run, clean, running, stop
from tests.mesh.report_schema import REPORT


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """``ringmesh up`` under load. Its books are judged when the last test has gone."""
    report = tmp_path_factory.mktemp("live") / "r.json"
    with running("up", report=report) as run:
        run.services()
        yield run
        assert run.popen.poll() is None, run.text
        assert stop(run) == 0, run.text
        result = run.report()
    jsonschema.validate(result, REPORT)
    assert not clean(result), run.text
    assert result["seconds"] > 1
    assert result["net"]["rx"] > 10_000
    assert not any(cost["restarts"] for cost in result["services"].values()), run.text
