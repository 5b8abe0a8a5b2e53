"""What the tests of several services share."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Final

import pytest
import structlog

#: Where garbage is collected hundreds of times: the lab frees its runs, front ends give their mappings back.
OFTEN: Final = {"lab", "vhost_user"}


@pytest.fixture(scope="module", autouse=True)
def _what_was_there_before_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """What thousands of tests before have left would be looked at at each collection, half a second long."""
    if OFTEN.isdisjoint(request.path.parts):
        yield
        return
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _logs_as_at_first() -> Iterator[None]:
    """A script's session and a service set up the logging of their process, which here is that of all tests."""
    yield
    structlog.reset_defaults()
