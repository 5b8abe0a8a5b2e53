"""Code of vendors' protocols is the user's: what it raises is counted and told, and ends neither guest nor service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from common.errors import RemoteError
from common.scmi.status import VENDOR_PROTOCOLS, Status
from services.scmi_platform.protocol import Result
from services.scmi_platform.stats import Stats

Tick = Callable[[float], float | None]
T = TypeVar("T")


class Guard:
    """``tell(protocol, error)`` hears of the first exception of each class that a protocol raises; who owns the
    platform sets it."""

    __slots__ = ("_stats", "_told", "tell")

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._told: set[tuple[int, str]] = set()
        self.tell: Callable[[int, Exception], None] = lambda protocol, error: None

    def result(self, protocol: int, call: Callable[..., Result]) -> Callable[..., Result]:
        """A handler, or what ends an asynchronous operation: GENERIC_ERROR where a vendor's fails."""
        if protocol < VENDOR_PROTOCOLS:
            return call

        def guarded(*args: Any) -> Result:
            try:
                result = call(*args)
                if not isinstance(result, (bytes, Status)):
                    raise TypeError(f"{call.__qualname__} returned {result!r:.100}, not bytes or a Status")
            except Exception as error:
                self._failed(protocol, error)
                return Status.GENERIC_ERROR
            return result

        return guarded

    def hook(self, protocol: int, call: Callable[[], T], otherwise: T) -> T:
        """What ``call()``, something else that the platform wants of the protocol, returns; ``otherwise`` where a
        vendor's fails. What it refuses (RemoteError, ValidationError) is passed on."""
        if protocol < VENDOR_PROTOCOLS:
            return call()
        try:
            return call()
        except (RemoteError, msgspec.ValidationError):
            raise
        except Exception as error:
            self._failed(protocol, error)
            return otherwise

    def tick(self, protocol: int, call: Tick) -> Tick:
        """A protocol's tick: nothing to do next where a vendor's fails."""
        if protocol < VENDOR_PROTOCOLS:
            return call

        def guarded(now: float) -> float | None:
            try:
                due = call(now)
                return None if due is None else float(due)
            except Exception as error:
                self._failed(protocol, error)
                return None

        return guarded

    def _failed(self, protocol: int, error: Exception) -> None:
        self._stats.vendor_failures += 1
        what = (protocol, type(error).__name__)
        if what not in self._told:
            self._told.add(what)
            self.tell(protocol, error)
