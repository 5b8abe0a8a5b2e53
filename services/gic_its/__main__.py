"""``python -m services.gic_its``: the ITS service with its defaults and the environment's overlay."""

from __future__ import annotations

import sys

from common.runtime.config import load
from common.runtime.service import run_service
from services.gic_its.config import ItsConfig
from services.gic_its.shell import ItsService

if __name__ == "__main__":
    sys.exit(run_service(ItsService, load(ItsConfig)))
