"""``python -m services.guest_driver``: the guest service with its defaults and the environment's overlay."""

from __future__ import annotations

import sys

from common.runtime.config import load
from common.runtime.service import run_service
from services.guest_driver.config import GuestConfig
from services.guest_driver.shell import GuestService

if __name__ == "__main__":
    sys.exit(run_service(GuestService, load(GuestConfig)))
