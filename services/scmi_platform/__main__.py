"""``python -m services.scmi_platform``: the SCMI platform with its defaults and the environment's overlay."""

from __future__ import annotations

import sys

from common.runtime.config import load
from common.runtime.service import run_service
from services.scmi_platform.config import ScmiConfig
from services.scmi_platform.shell import ScmiService

if __name__ == "__main__":
    sys.exit(run_service(ScmiService, load(ScmiConfig)))
