"""The control queue, the device's side (virtio 1.3 §5.1.6.5): one command in, OK or ERR out.

The rows of :data:`common.virtio.net_ctrl.COMMANDS` say what each command needs; here each is bound once to what
carries it out. A command that is refused changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.errors import LocalError, RemoteError
from common.virtio.features import Feature
from common.virtio.net_ctrl import (
    COMMANDS,
    CTRL_HEADER,
    NET_ERR,
    NET_OK,
    OFFLOADS,
    VLAN_ID,
    VQ_PAIRS,
    AnnounceCommand,
    CtrlClass,
    CtrlCommand,
    MacCommand,
    MqCommand,
    OffloadsCommand,
    RxCommand,
    VlanCommand,
    ctrl_name,
    decode_mac_table,
)
from services.vdpa_nic.net_state import NetState


@dataclass(slots=True)
class CtrlStats:
    """What the control queue counts, by the reason of a refusal."""

    ctrl_commands: int = 0
    #: no room for class and command
    ctrl_truncated: int = 0
    ctrl_unknown: int = 0
    ctrl_not_negotiated: int = 0
    ctrl_bad_length: int = 0
    ctrl_bad_value: int = 0


Handler = Callable[["Control", CtrlCommand, bytes], None]

_HANDLERS: Final[dict[tuple[int, int], Handler]] = {}


def carries_out(cls: CtrlClass, *commands: int) -> Callable[[Handler], Handler]:
    """Bind commands of class ``cls`` to a method. Raises LocalError where one is bound already or has no row."""

    def bind(handler: Handler) -> Handler:
        for command in commands:
            key = (cls, command)
            if key not in COMMANDS:
                raise LocalError(f"control command {ctrl_name(*key)}: no such row")
            if key in _HANDLERS:
                raise LocalError(f"control command {ctrl_name(*key)}: bound twice")
            _HANDLERS[key] = handler
        return handler

    return bind


class Control:
    """Commands of a driver that negotiated ``features`` (u64), on ``state``.

    ``on_pairs(n)`` is called when the driver set the number of queue pairs, after ``state``. ``log(event, …)`` is told
    of the first refusal of each kind that ``stats`` counts.
    """

    __slots__ = ("_features", "_log", "_on_pairs", "state", "stats")

    def __init__(
        self,
        state: NetState,
        features: int,
        *,
        on_pairs: Callable[[int], None],
        log: Callable[..., None],
        stats: CtrlStats | None = None,
    ) -> None:
        self.state: Final = state
        self.stats: Final = stats if stats is not None else CtrlStats()
        # no command at all without the queue that it comes through
        self._features: Final = features if features & Feature.NET_CTRL_VQ.bit else 0
        self._on_pairs: Final = on_pairs
        self._log: Final = log

    def handle(self, data: bytes) -> int:
        """Carry out one command, the device-readable bytes of a chain. Returns NET_OK or NET_ERR, which the device
        puts into the first device-writable byte; raises nothing, whatever ``data`` is."""
        self.stats.ctrl_commands += 1
        if len(data) < CTRL_HEADER.size:
            return self._refuse("truncated", None, length=len(data))
        key = CTRL_HEADER.unpack_from(data)
        row = COMMANDS.get(key)
        if row is None:
            return self._refuse("unknown", key)
        if not self._features & row.feature.bit:
            return self._refuse("not_negotiated", key, feature=row.feature.name)
        size = len(data) - CTRL_HEADER.size
        if size < row.size or (size > row.size and not row.longer):
            return self._refuse("bad_length", key, length=size, limit=row.size)
        try:
            _HANDLERS[key](self, row, data[CTRL_HEADER.size :])
        except RemoteError as error:
            return self._refuse("bad_value", key, error=str(error))
        return NET_OK

    def _refuse(self, reason: str, key: tuple[int, int] | None, **context: object) -> int:
        counter = f"ctrl_{reason}"
        count = getattr(self.stats, counter) + 1
        setattr(self.stats, counter, count)
        if count == 1:
            name = ctrl_name(*key) if key is not None else None
            self._log("control command refused", reason=reason, command=name, **context)
        return NET_ERR

    # --- one method a kind of command ---------------------------------------------------------------------------------

    @carries_out(CtrlClass.RX, *RxCommand)
    def _rx_mode(self, row: CtrlCommand, data: bytes) -> None:
        on = data[0]
        if on > 1:
            raise RemoteError(row.command.name.lower(), on, 1)
        self.state.set_rx_mode(RxCommand(row.command), bool(on))

    @carries_out(CtrlClass.MAC, MacCommand.TABLE_SET)
    def _mac_table_set(self, _row: CtrlCommand, data: bytes) -> None:
        self.state.set_mac_table(*decode_mac_table(data))

    @carries_out(CtrlClass.MAC, MacCommand.ADDR_SET)
    def _mac_addr_set(self, _row: CtrlCommand, data: bytes) -> None:
        self.state.set_mac(data)

    @carries_out(CtrlClass.VLAN, VlanCommand.ADD, VlanCommand.DEL)
    def _vlan(self, row: CtrlCommand, data: bytes) -> None:
        self.state.set_vlan(VLAN_ID.unpack(data)[0], row.command == VlanCommand.ADD)

    @carries_out(CtrlClass.ANNOUNCE, AnnounceCommand.ACK)
    def _announce_ack(self, _row: CtrlCommand, _data: bytes) -> None:
        self.state.announced()

    @carries_out(CtrlClass.MQ, MqCommand.VQ_PAIRS_SET)
    def _vq_pairs_set(self, _row: CtrlCommand, data: bytes) -> None:
        (pairs,) = VQ_PAIRS.unpack(data)
        self.state.set_pairs(pairs)
        self._on_pairs(pairs)

    @carries_out(CtrlClass.GUEST_OFFLOADS, OffloadsCommand.SET)
    def _guest_offloads_set(self, _row: CtrlCommand, data: bytes) -> None:
        self.state.set_guest_offloads(OFFLOADS.unpack(data)[0])


if _HANDLERS.keys() != COMMANDS.keys():  # pragma: no cover
    raise LocalError("control commands without a handler")
