"""``python -m services.vdpa_nic``: the NIC service with its defaults and the environment's overlay."""

from __future__ import annotations

import sys

from common.runtime.config import load
from common.runtime.service import run_service
from services.vdpa_nic.config import NicConfig
from services.vdpa_nic.shell import NicService

if __name__ == "__main__":
    sys.exit(run_service(NicService, load(NicConfig)))
