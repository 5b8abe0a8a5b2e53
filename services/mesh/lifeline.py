"""A service that a supervisor started ends with it, however the supervisor ends.

The supervisor names its process in an environment variable; the service asks the kernel for SIGKILL at the death of
its parent (Linux, ``prctl(2)`` PR_SET_PDEATHSIG). It asks itself, after exec: no code runs between fork and exec, and
a supervisor that died in between is seen by its changed parent. Nothing is left to poll, so a service that is stopped
or busy goes too.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import MutableMapping
from typing import Final

#: Variable with the supervisor's process id. It is no setting of a service: :func:`follow` takes it out.
SUPERVISOR: Final = "RINGMESH_SUPERVISOR"

_PR_SET_PDEATHSIG: Final = 1


def follow(environ: MutableMapping[str, str]) -> None:
    """Tie this process to the supervisor that ``environ`` names; nothing where it names none.

    Exits at once if that supervisor is gone already. On a kernel other than Linux the process is not tied.
    """
    named = environ.pop(SUPERVISOR, None)
    if named is None or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if str(os.getppid()) != named:
        sys.exit(f"supervisor {named} is gone")
