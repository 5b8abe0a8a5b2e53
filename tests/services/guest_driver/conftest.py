"""An agent on a real platform, for the tests of its clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.services.guest_driver.scmi_loop import BOARD, Loop


@pytest.fixture
def board() -> Path:
    """The platform's board; a module that wants another one says so."""
    return BOARD


@pytest.fixture
async def loop(board: Path) -> AsyncIterator[Loop]:
    made = Loop(board=board)
    await made.start()
    yield made
    await made.world.close()


@pytest.fixture(params=[False, True], ids=["sleeping", "polling"])
def poll(request: Any) -> bool:
    return bool(request.param)
