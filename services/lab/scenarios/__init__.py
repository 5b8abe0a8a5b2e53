"""Every race, one file each. Importing this package registers them all."""

from services.lab.scenarios import (
    aba_wrap,
    double_free,
    forced_free,
    lost_kick,
    map_under_dma,
    notify_half_record,
    notify_pending,
    poll_index_order,
    prefetched_reply,
    shutdown,
    stale_avail,
    state_after_teardown,
    timed_out_leak,
)

__all__ = [
    "aba_wrap",
    "double_free",
    "forced_free",
    "lost_kick",
    "map_under_dma",
    "notify_half_record",
    "notify_pending",
    "poll_index_order",
    "prefetched_reply",
    "shutdown",
    "stale_avail",
    "state_after_teardown",
    "timed_out_leak",
]
